//! Which keys and namespaces are accepted, and the pattern that finds the keys of a namespace.
//!
//! On the wire a key is `namespace:key`, or the bare key where the namespace is empty: nothing hashed, nothing escaped,
//! so that other clients find it. Only the pattern of a SCAN needs care, because there `*`, `?`, `[` and `\` mean
//! something else than themselves.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// What a key may look like. The default suits keys that people read: see [`KeyRules::default`].
///
/// ```
/// use larder_engine::key::KeyRules;
///
/// let rules = KeyRules::default();
/// assert!(rules.check("user:42:größe").is_ok());
///
/// let error = rules.check("user\t42").unwrap_err();
/// assert_eq!(error.to_string(), r#"key "user\t42" has a tab at position 4: encode it or leave it out"#);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyRules {
    /// The longest key, in code points. The server's own limit is far off, at 512 MiB.
    pub max_chars: usize,
    /// Whether spaces and control characters are allowed.
    pub any_char: bool,
}

impl Default for KeyRules {
    /// At most 250 code points, no spaces and no control characters. Such a key stays on one line of a log and is one
    /// word in a shell; memcached has the same limits (in bytes).
    fn default() -> Self {
        Self { max_chars: 250, any_char: false }
    }
}

impl KeyRules {
    /// Every key that is not empty: for keys that were made by a program and are read by none.
    #[must_use]
    pub const fn any() -> Self {
        Self { max_chars: usize::MAX, any_char: true }
    }

    /// Checks one key.
    ///
    /// # Errors
    /// The first of: it is empty, it has a forbidden character, it is too long. One pass over short ASCII keys; no
    /// allocation unless it fails.
    pub fn check(&self, key: &str) -> Result<(), KeyError> {
        if key.is_empty() {
            return Err(KeyError::new(Subject::Key, key, KeyFault::Empty));
        }
        self.check_chars(Subject::Key, key)
    }

    fn check_chars(&self, subject: Subject, text: &str) -> Result<(), KeyError> {
        let short = text.len() <= self.max_chars;
        if short && (self.any_char || text.bytes().all(|byte| byte.is_ascii_graphic())) {
            return Ok(());
        }
        let fault = match text.chars().position(|c| !self.any_char && is_forbidden(c)) {
            Some(at) => KeyFault::Forbidden { found: text.chars().nth(at).unwrap_or_default(), at },
            None => match text.chars().count() {
                chars if chars > self.max_chars => KeyFault::TooLong { chars, max: self.max_chars },
                _ => return Ok(()),
            },
        };
        Err(KeyError::new(subject, text, fault))
    }
}

/// Checks a namespace: empty, or anything that [`KeyRules::default`] accepts as a key.
///
/// A namespace may contain colons, and then lies within the shorter one: clearing `shop` clears `shop:eu` too.
///
/// # Errors
/// As [`KeyRules::check`], apart from emptiness.
pub fn check_namespace(namespace: &str) -> Result<(), KeyError> {
    KeyRules::default().check_chars(Subject::Namespace, namespace)
}

/// `prefix` written so that SCAN's `MATCH` takes every byte of it literally.
///
/// A backslash goes before `* ? [ ] \ ^ -`; that is all that `stringmatchlen` of Redis (`src/util.c`) gives a meaning,
/// inside brackets or out.
///
/// ```
/// assert_eq!(larder_engine::key::escape_glob(b"a*[b]"), br"a\*\[b\]");
/// ```
#[must_use]
pub fn escape_glob(prefix: &[u8]) -> Vec<u8> {
    let mut escaped = Vec::with_capacity(prefix.len());
    for &byte in prefix {
        if matches!(byte, b'*' | b'?' | b'[' | b']' | b'\\' | b'^' | b'-') {
            escaped.push(b'\\');
        }
        escaped.push(byte);
    }
    escaped
}

/// The `MATCH` pattern of exactly the keys in `namespace`: `a` finds `a:k` and neither `ab:k` nor `b:a:k`.
///
/// The empty namespace has no prefix, so its pattern is `*`: **all** keys of the database, also those of others.
/// Whoever deletes by this pattern refuses that case first.
///
/// ```
/// assert_eq!(larder_engine::key::scan_pattern(b"shop*"), br"shop\*:*");
/// ```
#[must_use]
pub fn scan_pattern(namespace: &[u8]) -> Vec<u8> {
    let mut prefix = namespace.to_vec();
    if !prefix.is_empty() {
        prefix.push(b':');
    }
    prefix_pattern(&prefix)
}

/// The `MATCH` pattern of exactly the keys that begin with `prefix`.
pub(crate) fn prefix_pattern(prefix: &[u8]) -> Vec<u8> {
    let mut pattern = escape_glob(prefix);
    pattern.push(b'*');
    pattern
}

/// A key or a namespace that was refused. It quotes the beginning of the text, escaped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{subject} {quoted} {fault}")]
pub struct KeyError {
    subject: Subject,
    quoted: Box<str>,
    fault: KeyFault,
}

/// What is wrong with a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyFault {
    /// It has no characters.
    #[error("is empty: give it at least one character")]
    Empty,
    /// It has more code points than the rules allow.
    #[error("has {chars} characters, and {max} is the limit: shorten it, or put a hash in place of its tail")]
    TooLong {
        /// Code points of the key.
        chars: usize,
        /// Code points that are allowed.
        max: usize,
    },
    /// It has a space or a control character.
    #[error("has {} at position {at}: encode it or leave it out", Name(*.found))]
    Forbidden {
        /// The first such character.
        found: char,
        /// How many code points stand before it.
        at: usize,
    },
}

impl KeyError {
    /// Characters quoted before the rest is left out.
    const QUOTED_CHARS: usize = 40;

    fn new(subject: Subject, text: &str, fault: KeyFault) -> Self {
        let mut quoted = String::from("\"");
        quoted.extend(text.chars().take(Self::QUOTED_CHARS).flat_map(char::escape_debug));
        quoted.push_str(if text.chars().nth(Self::QUOTED_CHARS).is_some() { "…\"" } else { "\"" });
        Self { subject, quoted: quoted.into_boxed_str(), fault }
    }

    /// What is wrong.
    #[must_use]
    pub const fn fault(&self) -> KeyFault {
        self.fault
    }
}

fn is_forbidden(c: char) -> bool {
    c == ' ' || c.is_control()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subject {
    Key,
    Namespace,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Key => "key",
            Self::Namespace => "namespace",
        })
    }
}

/// A forbidden character, as a person would call it.
struct Name(char);

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            ' ' => f.write_str("a space"),
            '\t' => f.write_str("a tab"),
            '\r' => f.write_str("a carriage return"),
            '\n' => f.write_str("a line feed"),
            '\0' => f.write_str("a NUL"),
            other => write!(f, "the control character U+{:04X}", u32::from(other)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use std::format;
    use std::string::ToString;

    use super::*;

    #[test]
    fn keys_are_judged_as_documented() {
        let rules = KeyRules::default();
        let forbidden = |found, at| Err(KeyFault::Forbidden { found, at });
        let table: &[(&str, Result<(), KeyFault>)] = &[
            ("k", Ok(())),
            ("user:42:email,name", Ok(())),
            ("größe:世界:😀", Ok(())),
            ("no\u{a0}break", Ok(())),
            ("", Err(KeyFault::Empty)),
            (" ", forbidden(' ', 0)),
            ("a b", forbidden(' ', 1)),
            ("ä\rb", forbidden('\r', 1)),
            ("ab\n", forbidden('\n', 2)),
            ("a\tb\n", forbidden('\t', 1)),
            ("a\0", forbidden('\0', 1)),
            ("\u{7f}", forbidden('\u{7f}', 0)),
            ("a\u{85}", forbidden('\u{85}', 1)),
        ];
        for (key, expected) in table {
            assert_eq!(rules.check(key).map_err(|error| error.fault()), *expected, "{key:?}");
        }
    }

    #[test]
    fn length_is_counted_in_code_points() {
        let rules = KeyRules::default();
        for unit in ["a", "ä", "世", "😀"] {
            assert_eq!(rules.check(&unit.repeat(250)), Ok(()));
            let error = rules.check(&unit.repeat(251)).expect_err("one too many");
            assert_eq!(error.fault(), KeyFault::TooLong { chars: 251, max: 250 });
        }
        let short = KeyRules { max_chars: 3, ..rules };
        assert_eq!(short.check("abc"), Ok(()));
        assert!(short.check("abcd").is_err());
    }

    #[test]
    fn any_refuses_only_the_empty_key() {
        assert_eq!(KeyRules::any().check(&"\0 \r\n\t".repeat(1000)), Ok(()));
        assert!(KeyRules::any().check("").is_err());
        let bounded = KeyRules { max_chars: 2, ..KeyRules::any() };
        assert_eq!(bounded.check("\0ä"), Ok(()));
        assert!(bounded.check("\0ä ").is_err());
    }

    #[test]
    fn messages_quote_escaped_and_shortened() {
        let rules = KeyRules::default();
        let message = |key: &str| rules.check(key).expect_err("refused").to_string();
        assert_eq!(message(""), r#"key "" is empty: give it at least one character"#);
        assert!(
            message("a\u{1b}[2J")
                .starts_with(r#"key "a\u{1b}[2J" has the control character U+001B at position 1:"#)
        );
        assert!(
            message(&"x".repeat(300)).starts_with(&format!("key \"{}…\" has 300 characters", "x".repeat(40)))
        );
        assert!(!message(&"\"\n".repeat(300)).contains('\n'));
    }

    #[test]
    fn namespaces_may_be_empty() {
        assert_eq!(check_namespace(""), Ok(()));
        assert_eq!(check_namespace("shop:eu"), Ok(()));
        let error = check_namespace("my shop").expect_err("space");
        assert!(error.to_string().starts_with(r#"namespace "my shop" has a space at position 2"#));
        assert!(check_namespace(&"n".repeat(251)).is_err());
    }

    /// `stringmatchlen` of Redis 7 (`src/util.c`), case-sensitive, recursing where it recurses.
    fn redis_matches(pattern: &[u8], text: &[u8]) -> bool {
        let Some((&first, rest)) = pattern.split_first() else {
            return text.is_empty();
        };
        let Some((&head, tail)) = text.split_first() else {
            return pattern.iter().all(|&byte| byte == b'*');
        };
        match first {
            b'*' => (0..=text.len()).any(|skip| redis_matches(rest, &text[skip..])),
            b'?' => redis_matches(rest, tail),
            b'[' => {
                let (matched, after) = class_matches(rest, head);
                matched && redis_matches(after, tail)
            }
            b'\\' if !rest.is_empty() => rest[0] == head && redis_matches(&rest[1..], tail),
            literal => literal == head && redis_matches(rest, tail),
        }
    }

    fn class_matches(class: &[u8], byte: u8) -> (bool, &[u8]) {
        let negated = class.first() == Some(&b'^');
        let mut rest = if negated { &class[1..] } else { class };
        let mut matched = false;
        loop {
            match rest {
                [b'\\', escaped, after @ ..] => {
                    matched |= *escaped == byte;
                    rest = after;
                }
                [b']', after @ ..] => return (matched != negated, after),
                [] => return (matched != negated, rest),
                [low, b'-', high, after @ ..] => {
                    matched |= (*low.min(high)..=*low.max(high)).contains(&byte);
                    rest = after;
                }
                [single, after @ ..] => {
                    matched |= *single == byte;
                    rest = after;
                }
            }
        }
    }

    #[test]
    fn the_model_matches_as_redis_documents() {
        let table = [
            ("h?llo", "hallo", true),
            ("h?llo", "hllo", false),
            ("h*llo", "heeeello", true),
            ("h[ae]llo", "hillo", false),
            ("h[^e]llo", "hallo", true),
            ("h[^e]llo", "hello", false),
            ("h[a-b]llo", "hbllo", true),
            (r"h\*llo", "h*llo", true),
            (r"h\*llo", "hallo", false),
            ("a**", "a", true),
            ("", "", true),
            ("", "a", false),
        ];
        for (pattern, text, expected) in table {
            assert_eq!(redis_matches(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn a_namespace_finds_its_own_keys_only() {
        let table = [
            ("a", "a:k", true),
            ("a", "a:", true),
            ("a", "ab:k", false),
            ("a", "b:a:k", false),
            ("a", "a", false),
            ("a*", "a*:k", true),
            ("a*", "abc:k", false),
            ("a?", "ab:k", false),
            ("[ab]", "a:k", false),
            ("[ab]", "[ab]:k", true),
            ("[^a-c]", "d:k", false),
            ("[^a-c]", "[^a-c]:k", true),
            (r"a\", r"a\:k", true),
            (r"a\", "a:k", false),
            ("", "anything", true),
        ];
        for (namespace, key, expected) in table {
            let pattern = scan_pattern(namespace.as_bytes());
            assert_eq!(redis_matches(&pattern, key.as_bytes()), expected, "{namespace} {key}");
        }
    }

    proptest! {
        #[test]
        fn scan_finds_a_key_exactly_when_it_has_the_prefix(
            namespace in r"[ab*?\[\]\\^:-]{1,5}",
            key in r"[ab*?\[\]\\^:-]{0,7}",
        ) {
            let prefix = format!("{namespace}:");
            let pattern = scan_pattern(namespace.as_bytes());
            prop_assert_eq!(redis_matches(&pattern, key.as_bytes()), key.starts_with(&prefix));
            let own = format!("{prefix}{key}");
            prop_assert!(redis_matches(&pattern, own.as_bytes()));
        }

        #[test]
        fn check_agrees_with_the_rule_as_it_is_worded(key in r"(\PC|[ \t\r\n\x00\x7f\u{85}]){0,6}", max_chars in 0usize..7) {
            let rules = KeyRules { max_chars, any_char: false };
            let accepted = !key.is_empty()
                && key.chars().count() <= max_chars
                && !key.chars().any(|c| c == ' ' || c.is_control());
            prop_assert_eq!(rules.check(&key).is_ok(), accepted);
        }
    }
}
