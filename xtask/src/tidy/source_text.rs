//! A Rust source file as the rules see it: which lines are product code, where functions end.
//!
//! It leans on rustfmt: an item that is opened at some indentation is closed by a `}` at the same.
//! It does not parse Rust.

/// A file's lines, each marked as product code or not.
pub(super) struct SourceText<'a> {
    lines: Vec<Line<'a>>,
}

struct Line<'a> {
    text: &'a str,
    test: bool,
}

/// A function: its first line, counted from 1, and how many lines it has.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Function {
    pub(super) line: usize,
    pub(super) lines: usize,
}

impl<'a> SourceText<'a> {
    /// Finds the regions under `#[cfg(test)]`.
    pub(super) fn parse(text: &'a str) -> SourceText<'a> {
        let mut lines = Vec::new();
        let mut until: Option<usize> = None;
        let mut pending = false;
        for text in text.lines() {
            let depth = indentation(text);
            let code = text.trim();
            let mut test = until.is_some() || pending;
            // `all(test, loom)`: a model, which is a test, too.
            if ["#[cfg(test)]", "#[cfg(all(test,"].iter().any(|start| code.starts_with(start)) {
                (pending, test) = (true, true);
            } else if pending && !code.starts_with("#[") && !code.is_empty() {
                pending = false;
                until = code.ends_with('{').then_some(depth);
            } else if until == Some(depth) && code.starts_with('}') {
                until = None;
            }
            lines.push(Line { text, test });
        }
        SourceText { lines }
    }

    /// Lines that are neither comments nor under `#[cfg(test)]`, counted from 1.
    pub(super) fn product_lines(&self) -> impl Iterator<Item = (usize, &'a str)> {
        self.code_lines().filter(|(_, line)| !line.test).map(|(number, line)| (number, line.text))
    }

    /// Lines that are no comments, counted from 1.
    pub(super) fn all_lines(&self) -> impl Iterator<Item = (usize, &'a str)> {
        self.code_lines().map(|(number, line)| (number, line.text))
    }

    fn code_lines(&self) -> impl Iterator<Item = (usize, &Line<'a>)> {
        let comment = |line: &Line<'_>| line.text.trim_start().starts_with("//");
        self.lines
            .iter()
            .enumerate()
            .filter(move |(_, line)| !comment(line))
            .map(|(at, line)| (at + 1, line))
    }

    /// Every function with a body of more than one line.
    pub(super) fn functions(&self) -> Vec<Function> {
        let mut functions = Vec::new();
        for (at, line) in
            self.lines.iter().enumerate().filter(|(_, line)| opens_function(line.text))
        {
            let depth = indentation(line.text);
            let body = self.lines.iter().skip(at).enumerate();
            let end = body.skip(1).find(|(_, line)| {
                indentation(line.text) == depth && line.text.trim_start().starts_with('}')
            });
            if let Some((length, _)) = end {
                functions.push(Function { line: at + 1, lines: length + 1 });
            }
        }
        functions
    }
}

fn indentation(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

fn opens_function(line: &str) -> bool {
    let line = line.trim_start();
    if line.starts_with("//") || line.ends_with(';') || line.ends_with("{}") || line.ends_with('}')
    {
        return false;
    }
    let words = line.split_whitespace().take_while(|word| !word.contains('{'));
    let mut before = words.take_while(|word| *word != "fn").peekable();
    let known = |word: &str| {
        word.starts_with("pub") || ["async", "const", "unsafe", "extern", "\"C\""].contains(&word)
    };
    let all_known = before.all(known);
    all_known && (line.starts_with("fn ") || line.contains(" fn "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_under_cfg_test_are_no_product_code() {
        let text = "fn a() {}\n#[cfg(test)]\nmod tests {\n    fn b() {}\n}\nfn c() {}\n// d\n";
        let lines: Vec<_> = SourceText::parse(text).product_lines().collect();
        assert_eq!(lines, [(1, "fn a() {}"), (6, "fn c() {}")]);
        let model = text.replace("(test)", "(all(test, loom))");
        assert_eq!(SourceText::parse(&model).product_lines().count(), 2);
    }

    #[test]
    fn a_use_under_cfg_test_ends_with_its_line() {
        let text = "#[cfg(test)]\nuse a::b;\nfn c() {}\n";
        assert_eq!(SourceText::parse(text).product_lines().count(), 1);
    }

    #[test]
    fn a_function_is_measured_to_its_closing_brace() {
        let text = "impl A {\n    pub(crate) async fn a(\n        b: u8,\n    ) -> u8 {\n        if \
                    b {\n        }\n        1\n    }\n}\nfn one() {}\nlet f = |x| {\n};\n";
        assert_eq!(SourceText::parse(text).functions(), [Function { line: 2, lines: 7 }]);
    }
}
