//! `redis://` URLs: where the server is, who we are, which database.
//!
//! ```text
//! redis://[[user][:password]@]host[:port][/database]                  (rediss://… for TLS)
//! redis+unix://[[user][:password]@]/path/to/socket[?db=database]      (or unix://…)
//! ```
//!
//! User and password are percent-decoded. The scheme names and forms are those of redis-cli and redis-py.

use std::path::PathBuf;

use larder_engine::config::{Credentials, Secret};
use percent_encoding::percent_decode_str;

use crate::error::ConfigError;
use crate::runtime::Endpoint;

const DEFAULT_PORT: u16 = 6379;

/// A parsed URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RedisUrl {
    pub(crate) endpoint: Endpoint,
    /// Whether the connection is to be secured.
    pub(crate) tls: bool,
    pub(crate) credentials: Option<Credentials>,
    pub(crate) database: u32,
}

impl RedisUrl {
    /// # Errors
    /// Names the part that is wrong, and never repeats the part that holds the password.
    pub(crate) fn parse(url: &str) -> Result<Self, ConfigError> {
        let Some((scheme, rest)) = url.split_once("://") else {
            return Err(error("it has no scheme; write redis://host:port/database"));
        };
        if rest.contains('#') {
            return Err(error("it has a fragment; write # in a user name or password as %23"));
        }
        match scheme.to_ascii_lowercase().as_str() {
            "redis" => Self::tcp(rest, false),
            "rediss" => Self::tcp(rest, true),
            "unix" | "redis+unix" | "redis-socket" => Self::unix(rest),
            _ => Err(error("its scheme is unknown; use redis://, rediss:// or redis+unix://")),
        }
    }

    fn tcp(rest: &str, tls: bool) -> Result<Self, ConfigError> {
        let (rest, query) = split_query(rest);
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (credentials, address) = split_credentials(authority)?;
        let (host, port) = split_address(address)?;
        let mut database = if path.is_empty() { 0 } else { database(path)? };
        for (name, value) in query {
            match name {
                "db" => database = self::database(value)?,
                _ => return Err(unknown_option()),
            }
        }
        let endpoint = Endpoint::Tcp { host: host.to_owned(), port };
        Ok(Self { endpoint, tls, credentials, database })
    }

    fn unix(rest: &str) -> Result<Self, ConfigError> {
        let (rest, query) = split_query(rest);
        let Some(slash) = rest.find('/') else {
            return Err(error("it has no path; write redis+unix:///path/to/redis.sock"));
        };
        let (authority, path) = rest.split_at(slash);
        let (credentials, host) = split_credentials(authority)?;
        if !host.is_empty() {
            return Err(error("a Unix socket has no host; write redis+unix:///path, with three slashes"));
        }
        let mut number = 0;
        for (name, value) in query {
            match name {
                "db" => number = database(value)?,
                _ => return Err(unknown_option()),
            }
        }
        let endpoint = Endpoint::Unix(PathBuf::from(decode(path, "the path")?));
        Ok(Self { endpoint, tls: false, credentials, database: number })
    }
}

fn error(problem: impl Into<String>) -> ConfigError {
    ConfigError::new("url", problem)
}

// Messages repeat nothing of the URL: a slip of the pen can make any part of it the password.

fn unknown_option() -> ConfigError {
    error("it has an unknown option; only db=… can stand behind the question mark")
}

fn split_query(rest: &str) -> (&str, impl Iterator<Item = (&str, &str)>) {
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let options = query.split('&').filter(|option| !option.is_empty());
    (rest, options.map(|option| option.split_once('=').unwrap_or((option, ""))))
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

fn split_address(address: &str) -> Result<(&str, u16), ConfigError> {
    let (host, port) = match address.strip_prefix('[') {
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
    if host.is_empty() {
        return Err(error("it has no host; write redis://host:port/database"));
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
            ("redis://[::1]:7000/1", tcp("::1", 7000), None, 1),
            ("redis://[::1]", tcp("::1", 6379), None, 0),
            ("redis://:pw@h", tcp("h", 6379), credentials(None, "pw"), 0),
            ("redis://u:p%40%2f%3a@h:1/0", tcp("h", 1), credentials(Some("u"), "p@/:"), 0),
            ("redis://u:p@p@h", tcp("h", 6379), credentials(Some("u"), "p@p"), 0),
            ("redis://@h", tcp("h", 6379), None, 0),
            ("rediss://u:p@h:6380/1", tcp("h", 6380), credentials(Some("u"), "p"), 1),
            ("unix:///tmp/r.sock", unix("/tmp/r.sock"), None, 0),
            ("redis+unix://:pw@/tmp/r.sock?db=1", unix("/tmp/r.sock"), credentials(None, "pw"), 1),
        ] {
            assert_eq!(
                RedisUrl::parse(url),
                Ok(RedisUrl { endpoint, tls: url.starts_with("rediss"), credentials, database }),
                "{url}"
            );
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
            ("redis://h/one", "not a number"),
            ("redis://u/secret@h", "not a number"),
            ("redis://:p@h?secret=1", "option"),
            ("redis://:p?secret@h", "no host"),
            ("redis://h?timeout=1", "option"),
            ("redis://user@h", "without a password"),
            ("redis://u:%ff@h", "password is not UTF-8"),
            ("redis://h/0#secret", "fragment"),
            ("unix://tmp.sock", "no path"),
            ("unix://tmp/r.sock", "three slashes"),
        ] {
            let error = RedisUrl::parse(url).expect_err(url);
            assert_eq!(error.field(), "url");
            let text = error.to_string();
            assert!(text.contains(says), "{url}: {text}");
            assert!(!text.contains("secret"), "{text}");
        }
    }
}
