//! `redis://` URLs: where the server is, who we are, which database, and parameters of the cache.
//!
//! ```text
//! redis://[[user][:password]@]host[:port][/database][?option=value&…]         (rediss://… for TLS)
//! redis+unix://[[user][:password]@]/path/to/socket[?db=database&option=value&…]      (or unix://…)
//! ```
//!
//! Everything between the marks is percent-decoded. The scheme names and forms are those of redis-cli and redis-py.

use std::env::{self, VarError};
use std::net::Ipv6Addr;
use std::path::PathBuf;

use larder_engine::config::{Credentials, Secret};
use percent_encoding::percent_decode_str;

use crate::error::ConfigError;
use crate::runtime::Endpoint;

const DEFAULT_PORT: u16 = 6379;

/// A URL, or where it should have been. Shown by nothing, as it may hold a password.
#[derive(Clone)]
pub(crate) enum UrlSource {
    Given(String),
    Variable { name: String, value: Result<String, VarError> },
}

impl UrlSource {
    /// What an environment variable holds now.
    pub(crate) fn variable(name: String) -> Self {
        // With such a name the standard library would panic.
        let sayable = !name.is_empty() && !name.contains(['=', '\0']);
        let value = if sayable { env::var(&name) } else { Err(VarError::NotPresent) };
        Self::Variable { name, value }
    }

    /// # Errors
    /// As [`RedisUrl::parse`]; they name the variable, if there is one.
    pub(crate) fn parse(&self) -> Result<(RedisUrl, Vec<UrlOption<'_>>), ConfigError> {
        let (name, value) = match self {
            Self::Given(url) => return RedisUrl::parse(url),
            Self::Variable { name, value } => (name, value),
        };
        let url = match value {
            Ok(url) if !url.is_empty() => url,
            Err(VarError::NotUnicode(_)) => {
                return Err(error(format!("the environment variable {name} is not UTF-8")));
            }
            Ok(_) | Err(VarError::NotPresent) => {
                let remedy = "set it to redis://host:port/database";
                return Err(error(format!("the environment variable {name} is not set; {remedy}")));
            }
        };
        RedisUrl::parse(url)
            .map_err(|wrong| error(format!("in the environment variable {name}: {}", wrong.problem())))
    }
}

/// A parsed URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RedisUrl {
    pub(crate) endpoint: Endpoint,
    /// Whether the connection is to be secured.
    pub(crate) tls: bool,
    pub(crate) credentials: Option<Credentials>,
    pub(crate) database: u32,
}

/// A parameter in the query. What the builder makes of it is not known here.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct UrlOption<'a> {
    pub(crate) name: &'a str,
    pub(crate) value: String,
}

impl RedisUrl {
    /// # Errors
    /// Names the part that is wrong, and never repeats the part that holds the password.
    pub(crate) fn parse(url: &str) -> Result<(Self, Vec<UrlOption<'_>>), ConfigError> {
        let Some((scheme, rest)) = url.split_once("://") else {
            return Err(error("it has no scheme; write redis://host:port/database"));
        };
        if rest.contains('#') {
            return Err(error("it has a fragment; write # in a user name or password as %23"));
        }
        if url.trim() != url {
            return Err(error("it begins or ends with white space, or a line break; remove that"));
        }
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let mut options = options(query)?;
        let mut url = match scheme.to_ascii_lowercase().as_str() {
            "redis" => Self::tcp(rest, false)?,
            "rediss" => Self::tcp(rest, true)?,
            "unix" | "redis+unix" | "redis-socket" => Self::unix(rest)?,
            _ => return Err(error("its scheme is unknown; use redis://, rediss:// or redis+unix://")),
        };
        if let Some(at) = options.iter().position(|option| option.name == "db") {
            url.database = database(&options.swap_remove(at).value)?;
        }
        Ok((url, options))
    }

    fn tcp(rest: &str, tls: bool) -> Result<Self, ConfigError> {
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (credentials, address) = split_credentials(authority)?;
        let (host, port) = split_address(address)?;
        let database = if path.is_empty() { 0 } else { database(path)? };
        Ok(Self { endpoint: Endpoint::Tcp { host, port }, tls, credentials, database })
    }

    fn unix(rest: &str) -> Result<Self, ConfigError> {
        let Some(slash) = rest.find('/') else {
            return Err(error("it has no path; write redis+unix:///path/to/redis.sock"));
        };
        let (authority, path) = rest.split_at(slash);
        let (credentials, host) = split_credentials(authority)?;
        if !host.is_empty() {
            return Err(error("a Unix socket has no host; write redis+unix:///path, with three slashes"));
        }
        let path = decode(path, "the path")?;
        if path == "/" || path.contains('\0') {
            return Err(error("its path is none of a socket; write redis+unix:///path/to/redis.sock"));
        }
        Ok(Self { endpoint: Endpoint::Unix(PathBuf::from(path)), tls: false, credentials, database: 0 })
    }
}

fn error(problem: impl Into<String>) -> ConfigError {
    ConfigError::new("url", problem)
}

// Messages repeat nothing of the URL: a slip of the pen can make any part of it the password.

fn options(query: &str) -> Result<Vec<UrlOption<'_>>, ConfigError> {
    let mut options: Vec<UrlOption<'_>> = Vec::new();
    for option in query.split('&').filter(|option| !option.is_empty()) {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        if options.iter().any(|option| option.name == name) {
            return Err(error("it has an option twice; leave one of them out"));
        }
        options.push(UrlOption { name, value: decode(value, "one of its options")? });
    }
    Ok(options)
}

fn split_credentials(authority: &str) -> Result<(Option<Credentials>, &str), ConfigError> {
    // The last @: one in a password should have been written as %40, but its meaning is clear.
    let Some((userinfo, address)) = authority.rsplit_once('@') else { return Ok((None, authority)) };
    let (username, password) = match userinfo.split_once(':') {
        Some((username, password)) => (username, Some(password)),
        None => (userinfo, None),
    };
    let username = decode(username, "the user name")?;
    let username = (!username.is_empty()).then_some(username);
    let Some(password) = password else {
        if username.is_none() {
            return Ok((None, address));
        }
        return Err(error(
            "it has a user name without a password; write user:password@, or :password@ for no user",
        ));
    };
    let password = Secret::from(&decode(password, "the password")?);
    Ok((Some(Credentials { username: username.map(Into::into), password }), address))
}

fn split_address(address: &str) -> Result<(String, u16), ConfigError> {
    let bracketed = address.strip_prefix('[');
    let (host, port) = match bracketed {
        Some(rest) => {
            let Some((host, port)) = rest.split_once(']') else {
                return Err(error("an IPv6 address begins with [ and does not end with ]"));
            };
            match port.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None if port.is_empty() => (host, None),
                None => return Err(error("only :port can follow the ] of an IPv6 address")),
            }
        }
        None => match address.split_once(':') {
            Some((_, port)) if port.contains(':') => {
                return Err(error("an IPv6 address must stand in brackets, like [::1]:6379"));
            }
            Some((host, port)) => (host, Some(port)),
            None => (address, None),
        },
    };
    let host = decode(host, "the host")?;
    if host.is_empty() {
        return Err(error("it has no host; write redis://host:port/database"));
    }
    if host.contains(|c: char| c.is_whitespace() || c.is_control() || c == '/') {
        return Err(error("its host has characters that no name of a host has"));
    }
    // Behind a % may stand the interface that a link-local address is on.
    let address = host.split('%').next().unwrap_or_default();
    if bracketed.is_some() && address.parse::<Ipv6Addr>().is_err() {
        return Err(error("what stands in the brackets is no IPv6 address, like [::1]"));
    }
    let port = match port {
        None | Some("") => DEFAULT_PORT,
        Some(port) => match port.parse() {
            Ok(port) if port > 0 => port,
            _ => {
                return Err(error(
                    "its port is not a number from 1 to 65535; a / or @ in a password is written %2F, %40",
                ));
            }
        },
    };
    Ok((host, port))
}

fn database(text: &str) -> Result<u32, ConfigError> {
    text.trim_end_matches('/')
        .parse()
        .map_err(|_| error("the database is not a number; write it like redis://host:port/0"))
}

fn decode(text: &str, what: &str) -> Result<String, ConfigError> {
    match percent_decode_str(text).decode_utf8() {
        Ok(text) => Ok(text.into_owned()),
        Err(_) => Err(error(format!("{what} is not UTF-8 when percent-decoded"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: &str, port: u16) -> Endpoint {
        Endpoint::Tcp { host: host.to_owned(), port }
    }

    fn credentials(username: Option<&'static str>, password: &str) -> Option<Credentials> {
        Some(Credentials { username: username.map(Into::into), password: Secret::from(password) })
    }

    #[test]
    fn urls_mean_what_they_mean_elsewhere() {
        let unix = |path: &str| Endpoint::Unix(path.into());
        for (url, endpoint, credentials, database) in [
            ("redis://localhost", tcp("localhost", 6379), None, 0),
            ("redis://localhost:6380/2", tcp("localhost", 6380), None, 2),
            ("REDIS://localhost/", tcp("localhost", 6379), None, 0),
            ("redis://localhost?db=3", tcp("localhost", 6379), None, 3),
            ("redis://localhost/2?db=3&", tcp("localhost", 6379), None, 3),
            ("redis://[::1]:7000/1", tcp("::1", 7000), None, 1),
            ("redis://[::1]", tcp("::1", 6379), None, 0),
            ("redis://:pw@[2001:db8::1]:1", tcp("2001:db8::1", 1), credentials(None, "pw"), 0),
            ("redis://[fe80::1%25eth0]", tcp("fe80::1%eth0", 6379), None, 0),
            ("redis://r%65dis", tcp("redis", 6379), None, 0),
            ("redis://:pw@h", tcp("h", 6379), credentials(None, "pw"), 0),
            ("redis://u:p%40%2f%3a@h:1/0", tcp("h", 1), credentials(Some("u"), "p@/:"), 0),
            ("redis://u:p@p@h", tcp("h", 6379), credentials(Some("u"), "p@p"), 0),
            ("redis://@h", tcp("h", 6379), None, 0),
            ("rediss://u:p@h:6380/1", tcp("h", 6380), credentials(Some("u"), "p"), 1),
            ("unix:///tmp/r.sock", unix("/tmp/r.sock"), None, 0),
            ("redis+unix://:pw@/tmp/r.sock?db=1", unix("/tmp/r.sock"), credentials(None, "pw"), 1),
            ("unix:///with%20space/%3f.sock", unix("/with space/?.sock"), None, 0),
        ] {
            let tls = url.starts_with("rediss");
            let expected = RedisUrl { endpoint, tls, credentials, database };
            assert_eq!(RedisUrl::parse(url), Ok((expected, vec![])), "{url}");
        }
    }

    #[test]
    fn options_are_handed_on() {
        let (url, options) = RedisUrl::parse("unix:///s?lanes=2&db=4&namespace=a%26b&c").expect("good");
        assert_eq!(url.database, 4);
        let mut options: Vec<_> = options.iter().map(|option| (option.name, option.value.as_str())).collect();
        options.sort_unstable();
        assert_eq!(options, [("c", ""), ("lanes", "2"), ("namespace", "a&b")]);
    }

    #[test]
    fn a_variable_is_named_in_what_is_wrong_with_it() {
        let source = |value| UrlSource::Variable { name: "REDIS_URL".to_owned(), value };
        let good = source(Ok("redis://h".to_owned()));
        assert_eq!(good.parse().expect("good").0.endpoint, tcp("h", 6379));
        let unset = UrlSource::variable("LARDER_NOBODY_SETS_THIS".to_owned());
        for (source, says) in [
            (
                source(Ok("redis://:secret@".to_owned())),
                "in the environment variable REDIS_URL: it has no host",
            ),
            (source(Ok(String::new())), "the environment variable REDIS_URL is not set; set it to redis://"),
            (source(Err(VarError::NotUnicode("secret".into()))), "REDIS_URL is not UTF-8"),
            (unset, "the environment variable LARDER_NOBODY_SETS_THIS is not set"),
            (UrlSource::variable("A=B".to_owned()), "A=B is not set"),
            (UrlSource::variable(String::new()), "is not set"),
        ] {
            let text = source.parse().expect_err(says).to_string();
            assert!(text.starts_with("url: ") && text.contains(says), "{text}");
            assert!(!text.contains("secret"), "{text}");
        }
    }

    #[test]
    fn mistakes_are_named_and_passwords_are_not() {
        for (url, says) in [
            ("localhost:6379", "no scheme"),
            ("http://localhost", "scheme is unknown"),
            ("redis://", "no host"),
            ("redis://:6379", "no host"),
            ("redis://h:0", "port"),
            ("redis://h:65536", "port"),
            ("redis://u:secret/word@h", "port"),
            ("redis://::1:6379", "brackets"),
            ("redis://[::1:6379", "does not end"),
            ("redis://[::1]6379", "only :port"),
            ("redis://[secret]", "no IPv6"),
            ("redis://[]", "no host"),
            ("redis://a%20b", "no name of a host"),
            ("redis://a%2Fb", "no name of a host"),
            ("redis://%ff", "host is not UTF-8"),
            ("redis://h/one", "not a number"),
            ("redis://h/-1", "not a number"),
            ("redis://h?db=secret", "not a number"),
            ("redis://h?db", "not a number"),
            ("redis://h?db=1&db=2", "twice"),
            ("redis://h?a=%ff", "not UTF-8"),
            ("redis://u/secret@h", "not a number"),
            ("redis://:p?secret@h", "no host"),
            ("redis://user@h", "without a password"),
            ("redis://u:%ff@h", "password is not UTF-8"),
            ("redis://h/0#secret", "fragment"),
            ("redis://h/0\n", "white space"),
            (" redis://h", "white space"),
            ("unix://tmp.sock", "no path"),
            ("unix://tmp/r.sock", "three slashes"),
            ("unix:///", "none of a socket"),
            ("unix:///a%00b", "none of a socket"),
        ] {
            let error = RedisUrl::parse(url).expect_err(url);
            assert_eq!(error.field(), "url");
            let text = error.to_string();
            assert!(text.contains(says), "{url}: {text}");
            assert!(!text.contains("secret"), "{text}");
        }
    }
}
