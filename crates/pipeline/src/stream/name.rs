//! What a stream may be called: `[A-Za-z][A-Za-z0-9_.-]{0,127}`. The one place that says so.

/// The rules for a stream's name.
///
/// # Errors
/// A text for people that names the rule that was broken.
pub fn check_stream_name(name: &str) -> Result<(), String> {
    let shown: String = name.chars().take(64).flat_map(char::escape_default).collect();
    let mut bytes = name.bytes();
    match bytes.next() {
        None => return Err("a stream's name cannot be empty".to_owned()),
        Some(b'_') => {
            return Err(format!("`{shown}` begins with `_`; such names are Forebay's own"));
        }
        Some(first) if first.is_ascii_alphabetic() => {}
        Some(_) => return Err(format!("`{shown}` must begin with a letter A-Z or a-z")),
    }
    if name.len() > 128 {
        return Err(format!("a stream's name has at most 128 characters, `{shown}…` has more"));
    }
    match name.chars().find(|c| !(c.is_ascii_alphanumeric() || "_.-".contains(*c))) {
        Some(wrong) => Err(format!(
            "`{shown}` contains {wrong:?}; a stream's name is made of letters, digits, `_`, `.` and `-`"
        )),
        None => Ok(()),
    }
}
