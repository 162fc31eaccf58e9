//! Where the records of a JSON body end: an object, or an array of them, of which commas and
//! brackets between records are checked here, and those inside a record only counted.

use super::Step;

/// Where in the body the next byte stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    #[default]
    Start,
    /// After `[`: a record or `]`.
    First,
    /// After a comma: a record.
    Next,
    /// Inside a record.
    Record(Value),
    /// After a record of the array: a comma or `]`.
    After,
    /// Everything is read; only white space may follow.
    Done,
}

/// Where in a value the next byte stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Value {
    open: u8,
    depth: usize,
    in_string: bool,
    escaped: bool,
    scalar: bool,
}

/// What the scan of a value came to.
enum Found {
    More,
    /// The value ends after so many bytes.
    End(usize),
    /// The bracket at this offset closes another kind than was opened.
    Mismatch(usize),
}

impl Value {
    /// Scans on, from the value's first byte or from where the last call stopped.
    fn scan(&mut self, bytes: &[u8]) -> Found {
        let mut at = 0;
        while at < bytes.len() {
            if self.escaped {
                self.escaped = false;
                at += 1;
                continue;
            }
            if self.in_string {
                let Some(found) = memchr::memchr2(b'"', b'\\', &bytes[at..]) else {
                    return Found::More;
                };
                at += found + 1;
                if bytes[at - 1] == b'\\' {
                    self.escaped = true;
                    continue;
                }
                self.in_string = false;
                if self.depth == 0 {
                    return Found::End(at);
                }
                continue;
            }
            match bytes[at] {
                b'"' if self.scalar => return Found::End(at),
                b'"' => self.in_string = true,
                b'{' | b'[' if self.scalar => return Found::End(at),
                byte @ (b'{' | b'[') => {
                    if self.depth == 0 {
                        self.open = byte;
                    }
                    self.depth += 1;
                }
                byte @ (b'}' | b']') => {
                    if self.depth == 0 {
                        return Found::End(at);
                    }
                    self.depth -= 1;
                    if self.depth == 0 {
                        let matches = (self.open == b'{') == (byte == b'}');
                        return if matches { Found::End(at + 1) } else { Found::Mismatch(at) };
                    }
                }
                b',' | b' ' | b'\t' | b'\n' | b'\r' if self.depth == 0 => return Found::End(at),
                _ => self.scalar |= self.depth == 0,
            }
            at += 1;
        }
        Found::More
    }
}

#[derive(Debug, Default)]
pub(super) struct Scanner {
    state: State,
    /// The body is one object, not an array.
    single: bool,
}

/// How the body stands at its end.
pub(super) enum End {
    /// White space alone.
    Nothing,
    Whole,
    /// Something was not closed.
    Open(&'static str),
}

impl Scanner {
    pub(super) fn step(&mut self, bytes: &[u8]) -> Step {
        let mut at = 0;
        while at < bytes.len() {
            if let State::Record(value) = &mut self.state {
                match value.scan(&bytes[at..]) {
                    Found::More => return Step::More,
                    Found::Mismatch(found) => {
                        let message = "this bracket does not close the one that was opened";
                        return Step::Wrong { at: at + found, message };
                    }
                    Found::End(found) => {
                        self.state = if self.single { State::Done } else { State::After };
                        return Step::Ends { end: at + found, record: true };
                    }
                }
            }
            let byte = bytes[at];
            if matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
                at += 1;
                continue;
            }
            match self.punctuation(byte) {
                Ok(true) => at += 1,
                Ok(false) => {}
                Err(message) => return Step::Wrong { at, message },
            }
        }
        // What stands between records goes with the record that follows.
        Step::More
    }

    /// Takes a byte that stands between records. `Ok(false)` if it begins one.
    fn punctuation(&mut self, byte: u8) -> Result<bool, &'static str> {
        match (self.state, byte) {
            (State::Start, b'[') => self.state = State::First,
            (State::Start, b'{') => {
                self.single = true;
                self.state = State::Record(Value::default());
                return Ok(false);
            }
            (State::Start, _) => return Err("expected an object or an array of objects"),
            (State::First | State::After, b']') => self.state = State::Done,
            (State::First, b',') => return Err("a comma before the first record"),
            (State::Next, b',') => return Err("two commas between records"),
            (State::Next, b']') => return Err("a comma after the last record"),
            (State::First | State::Next, b'}' | b':') => return Err("expected a record"),
            (State::First | State::Next, _) => {
                self.state = State::Record(Value::default());
                return Ok(false);
            }
            (State::After, b',') => self.state = State::Next,
            (State::After, _) => return Err("expected a comma or ] after a record"),
            (State::Done, _) if self.single => {
                return Err("bytes after the object; send many records as an array or as NDJSON");
            }
            (State::Done, _) => return Err("bytes after the end of the array"),
            (State::Record(_), _) => return Ok(false),
        }
        Ok(true)
    }

    /// The next byte is not the one that follows: a record that only it would have ended (a number)
    /// ends here. True if there was one.
    pub(super) fn pause(&mut self) -> bool {
        let open = matches!(self.state, State::Record(_));
        if open {
            self.state = State::After;
        }
        open
    }

    pub(super) fn finish(&self) -> End {
        match self.state {
            State::Start => End::Nothing,
            State::Done => End::Whole,
            State::First | State::Next | State::After => {
                End::Open("the body ends inside the array; its ] is missing")
            }
            State::Record(_) => End::Open("the body ends inside a record"),
        }
    }
}

/// The length of the value at the start of `bytes`.
pub(super) fn value_length(bytes: &[u8]) -> usize {
    match Value::default().scan(bytes) {
        Found::End(end) => end,
        Found::Mismatch(at) => at + 1,
        Found::More => bytes.len(),
    }
}
