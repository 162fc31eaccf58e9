//! Leaving out a part of a body that is known: what an upload that goes on where it was cut needs.

use super::{Chunk, Cutter, Malformed, Scanner};

impl Cutter {
    /// Ends the chunk being gathered here, and takes the bytes pushed next as those at `offset` of the
    /// body. Both must be places where a chunk of the whole body ends. What the beginning settled stays:
    /// the header, that the body is an array. Lines and columns are counted from 1 again.
    ///
    /// `None` if nothing is gathered.
    ///
    /// # Errors
    /// As [`Cutter::push`].
    pub fn jump(&mut self, offset: u64) -> Result<Option<Chunk>, Malformed> {
        self.let_go()?;
        // Some records end by what follows them: a number before a comma, a line that ends in CR.
        let open = match &mut self.scanner {
            Scanner::Json(scanner) => scanner.pause().then_some(true),
            Scanner::Lines(scanner) => scanner.finish().then_some(true),
            Scanner::Csv(scanner) => scanner.finish(),
        };
        if let Some(record) = open {
            self.record_ends(record)?;
        }
        let chunk = (self.gathered > 0 || self.records > 0).then(|| self.cut(false));
        (self.offset, self.position) = (offset, offset);
        (self.line, self.column) = (1, 1);
        Ok(chunk)
    }
}
