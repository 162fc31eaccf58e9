//! Bearer tokens: who may do what. Holds hashes only; a token itself is never kept or shown.

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// One token's holder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// The holder's name: the tenant.
    pub name: String,
    /// SHA-256 of the token.
    pub hash: [u8; 32],
    /// The streams it may write. Empty: every stream, and every other route.
    pub streams: Vec<String>,
}

impl Token {
    /// True when the holder may write `stream`.
    pub fn may_write(&self, stream: &str) -> bool {
        self.streams.is_empty() || self.streams.iter().any(|name| name == stream)
    }

    /// True when the holder may use every route: no streams were named for it.
    pub fn is_unrestricted(&self) -> bool {
        self.streams.is_empty()
    }
}

/// All tokens.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tokens(pub Vec<Token>);

impl Tokens {
    /// True when none is configured: then nobody is asked for one.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The holder of `presented`. Takes the same time whichever token matches, or none.
    pub fn find(&self, presented: &[u8]) -> Option<&Token> {
        let hash: [u8; 32] = Sha256::digest(presented).into();
        let mut found = None;
        for token in &self.0 {
            if bool::from(token.hash.ct_eq(&hash)) {
                found = Some(token);
            }
        }
        found
    }
}

/// Reads `sha256:` and 64 hexadecimal digits.
///
/// # Errors
/// A text for people.
pub fn parse_hash(text: &str) -> Result<[u8; 32], String> {
    let wrong = || {
        "a token's hash is `sha256:` and 64 hexadecimal digits; \
         make one with: printf %s \"$TOKEN\" | sha256sum"
            .to_owned()
    };
    let hex = text.strip_prefix("sha256:").ok_or_else(wrong)?.as_bytes();
    let mut hash = [0u8; 32];
    if hex.len() != 2 * hash.len() {
        return Err(wrong());
    }
    for (byte, pair) in hash.iter_mut().zip(hex.chunks_exact(2)) {
        let pair = std::str::from_utf8(pair).map_err(|_| wrong())?;
        if !pair.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(wrong());
        }
        *byte = u8::from_str_radix(pair, 16).map_err(|_| wrong())?;
    }
    Ok(hash)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_token_is_found_by_the_hash_that_sha256sum_prints() {
        let hash =
            parse_hash("sha256:2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b");
        let tokens = Tokens(vec![Token {
            name: "shop".to_owned(),
            hash: hash.unwrap(),
            streams: vec!["flights".to_owned()],
        }]);
        let shop = tokens.find(b"secret").unwrap();
        assert!(shop.may_write("flights") && !shop.may_write("other") && !shop.is_unrestricted());
        assert_eq!(tokens.find(b"Secret"), None);
    }

    #[test]
    fn a_hash_of_another_shape_is_refused() {
        for text in ["", "md5:00", "sha256:", "sha256:zz", &format!("sha256:{}", "+f".repeat(32))] {
            assert!(parse_hash(text).is_err(), "{text}");
        }
    }
}
