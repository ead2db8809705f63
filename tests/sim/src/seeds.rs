//! Seeds as people write them.

/// A seed: decimal, or hexadecimal after `0x`.
pub(crate) fn parse(text: &str) -> Result<u64, String> {
    let parsed = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hex) if !hex.starts_with('+') => u64::from_str_radix(hex, 16),
        Some(_) => return Err(format!("{text:?} is not a seed")),
        None if text.starts_with('+') => return Err(format!("{text:?} is not a seed")),
        None => text.parse(),
    };
    parsed.map_err(|_| {
        format!("{text:?} is not a seed: give a number below 2^64, or 0x and its hex digits")
    })
}

/// A seed made of any text, such as a commit's id.
pub(crate) fn of_text(text: &str) -> u64 {
    use std::hash::{BuildHasher, Hasher};
    let mut hasher = foldhash::quality::FixedState::with_seed(7).build_hasher();
    hasher.write(text.as_bytes());
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_numbers_and_nothing_else() {
        assert_eq!(parse("17"), Ok(17));
        assert_eq!(parse("0xfF"), Ok(255));
        assert_eq!(parse("18446744073709551615"), Ok(u64::MAX));
        for bad in [
            "",
            "x",
            "0x",
            "-1",
            "+1",
            "0x+1",
            "1.5",
            "18446744073709551616",
            "ff",
            " 1",
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn texts_give_seeds() {
        assert_eq!(of_text("abc"), of_text("abc"));
        assert_ne!(of_text("abc"), of_text("abd"));
    }
}
