//! Parameters in the query of a URL, so that they can be changed where a service is run, not where it is written.

use std::str::FromStr;
use std::time::Duration;

use super::RedisBuilder;
use crate::error::ConfigError;
use crate::url::UrlOption;

impl RedisBuilder {
    /// What the options of its URL make of it: they are called as the methods are, and win over them.
    pub(super) fn with_options(mut self, options: &[UrlOption<'_>]) -> Result<Self, ConfigError> {
        let mut key = None;
        for option in options {
            self = match option.name {
                "namespace" => self.namespace(option.text()),
                "default_ttl" => self.default_ttl(option.duration()?),
                "client_name" => self.client_name(option.text()),
                "max_connections" => self.max_connections(option.number()?),
                "lanes" => self.lanes(option.number()?),
                "operation_timeout" => self.operation_timeout(option.duration()?),
                "connect_timeout" => self.connect_timeout(option.duration()?),
                "stall_timeout" => self.stall_timeout(option.duration()?),
                "health_check_interval" => self.health_check_interval(option.duration()?),
                "retry_attempts" => self.retry_attempts(option.number()?),
                "breaker_threshold" => self.breaker_threshold(option.number()?),
                "breaker_timeout" => self.breaker_timeout(option.duration()?),
                "fallback" => self.fallback(option.switch()?),
                "max_staleness" => self.max_staleness(option.duration()?),
                "tls_ca_file" => self.tls_ca_file(option.text()),
                "tls_server_name" => self.tls_server_name(option.text()),
                "tls_client_certificate" => self.tls_client_certificate(option.text(), ""),
                "tls_client_key" => {
                    key = Some(option.text());
                    self
                }
                _ => return Err(unknown()),
            };
        }
        match (&mut self.tls.client_certificate, key) {
            (Some((_, key)), Some(given)) => *key = given.into(),
            (None, None) => {}
            (Some((_, key)), None) if !key.as_os_str().is_empty() => {}
            _ => return Err(error("tls_client_certificate and tls_client_key must be given together")),
        }
        Ok(self)
    }
}

impl UrlOption<'_> {
    fn text(&self) -> String {
        self.value.clone()
    }

    fn number<T: FromStr>(&self) -> Result<T, ConfigError> {
        self.value.parse().map_err(|_| self.is_not("a whole number"))
    }

    fn switch(&self) -> Result<bool, ConfigError> {
        match self.value.as_str() {
            "on" | "true" => Ok(true),
            "off" | "false" => Ok(false),
            _ => Err(self.is_not("on or off")),
        }
    }

    fn duration(&self) -> Result<Duration, ConfigError> {
        self.parse_duration()
            .ok_or_else(|| self.is_not("a whole number with a unit, like 500ms, 5s, 10m or 1h"))
    }

    fn parse_duration(&self) -> Option<Duration> {
        let digits = self.value.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = self.value.split_at_checked(digits)?;
        let number: u64 = number.parse().ok()?;
        match unit {
            "ms" => Some(Duration::from_millis(number)),
            "s" => Some(Duration::from_secs(number)),
            "m" => Some(Duration::from_secs(number.checked_mul(60)?)),
            "h" => Some(Duration::from_secs(number.checked_mul(3600)?)),
            _ => None,
        }
    }

    fn is_not(&self, what: &str) -> ConfigError {
        // Unknown names are never shown, and a value never: either may be a password that stands in the wrong place.
        error(format!("its option {} is not {what}", self.name))
    }
}

fn unknown() -> ConfigError {
    error(
        "it has an option that is unknown; there are db, namespace, default_ttl, client_name, max_connections, lanes, \
         operation_timeout, connect_timeout, stall_timeout, health_check_interval, retry_attempts, breaker_threshold, \
         breaker_timeout, fallback, max_staleness, tls_ca_file, tls_server_name, tls_client_certificate, tls_client_key",
    )
}

fn error(problem: impl Into<String>) -> ConfigError {
    ConfigError::new("url", problem)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::Cache;
    use crate::url::RedisUrl;

    fn configured(query: &str) -> Result<RedisBuilder, ConfigError> {
        let url = format!("rediss://h?{query}");
        Cache::redis(url.as_str()).with_options(&RedisUrl::parse(&url)?.1)
    }

    /// Each option does what the method of its name does; `Debug` shows all that they can change.
    #[test]
    fn options_are_called_as_the_methods_are() {
        let (ms, secs) = (Duration::from_millis, Duration::from_secs);
        let by_method = || Cache::redis("rediss://h");
        let cases = [
            ("namespace=a%3Ab", by_method().namespace("a:b")),
            ("default_ttl=2h", by_method().default_ttl(secs(7200))),
            ("client_name=me", by_method().client_name("me")),
            ("max_connections=7", by_method().max_connections(7)),
            ("lanes=3", by_method().lanes(3)),
            ("operation_timeout=250ms", by_method().operation_timeout(ms(250))),
            ("connect_timeout=2s", by_method().connect_timeout(secs(2))),
            ("stall_timeout=4s", by_method().stall_timeout(secs(4))),
            ("health_check_interval=1m", by_method().health_check_interval(secs(60))),
            ("retry_attempts=1", by_method().retry_attempts(1)),
            ("breaker_threshold=9", by_method().breaker_threshold(9)),
            ("breaker_timeout=5s", by_method().breaker_timeout(secs(5))),
            ("fallback=off", by_method().fallback(false)),
            ("max_staleness=10m", by_method().max_staleness(secs(600))),
            ("tls_ca_file=%2Fca.pem", by_method().tls_ca_file("/ca.pem")),
            ("tls_server_name=n", by_method().tls_server_name("n")),
            ("tls_client_key=/k&tls_client_certificate=/c", by_method().tls_client_certificate("/c", "/k")),
        ];
        let show = |it: &RedisBuilder| format!("{it:?}");
        let plain = show(&by_method());
        for (query, expected) in cases {
            let by_option = configured(query).unwrap_or_else(|error| panic!("{query}: {error}"));
            assert_eq!(show(&by_option), show(&expected), "{query}");
            assert_ne!(show(&by_option), plain, "{query} changes nothing");
        }
    }

    #[test]
    fn options_win_over_methods() {
        let url = "redis://h?lanes=3";
        let builder = Cache::redis(url).lanes(2).with_options(&RedisUrl::parse(url).expect("good").1);
        assert_eq!(builder.expect("good").lanes, 3);
    }

    #[test]
    fn mistakes_in_options_are_named_and_values_are_not() {
        for (query, says) in [
            ("secret=1", "unknown"),
            ("socket_timeout=5", "unknown"),
            ("operation_timeout=5", "operation_timeout is not a whole number with a unit, like 500ms"),
            ("operation_timeout=secret", "operation_timeout is not"),
            ("operation_timeout=", "operation_timeout is not"),
            ("operation_timeout=s", "operation_timeout is not"),
            ("operation_timeout=5%C2%B5s", "operation_timeout is not"),
            ("operation_timeout=99999999999999999999s", "operation_timeout is not"),
            ("operation_timeout=9999999999999999999h", "operation_timeout is not"),
            ("lanes=-1", "lanes is not a whole number"),
            ("lanes", "lanes is not a whole number"),
            ("lanes=1&lanes=2", "twice"),
            ("fallback=secret", "fallback is not on or off"),
            ("namespace=%ff", "not UTF-8"),
            ("tls_client_certificate=/secret", "together"),
            ("tls_client_key=/secret", "together"),
        ] {
            let error = configured(query).expect_err(query);
            let text = error.to_string();
            assert!(error.field() == "url" && text.contains(says), "{query}: {text}");
            assert!(!text.contains("secret"), "{text}");
        }
    }
}
