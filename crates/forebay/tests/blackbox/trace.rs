//! What strace wrote, as calls with a beginning and an end, and the rules of order that are judged on it.
//!
//! It knows system calls and paths, not the journal's format: a segment is a file whose name begins
//! with `seg-`, a checkpoint one that begins with `ckpt.`, a table is what lies under `lake/`.

use std::collections::HashMap;

/// A journal write of at least this many bytes holds rows; an empty block is smaller.
const ROWS_BYTES: i64 = 8192;

/// The calls that [`Trace`] understands, for `strace -e`.
pub(crate) const CALLS: &str = "trace=openat,write,pwrite64,writev,pwritev,pwritev2,sendto,sendmsg,read,\
                                recvfrom,fsync,fdatasync,link,linkat,rename,renameat,renameat2,mkdir,mkdirat";

/// One system call; `begin` and `end` are line numbers, so that calls of other threads have an order.
#[derive(Debug)]
struct Call {
    name: String,
    text: String,
    begin: usize,
    end: usize,
    result: i64,
}

/// Everything that was traced.
#[derive(Debug)]
pub(crate) struct Trace(Vec<Call>);

impl Trace {
    /// Parses the output of `strace -f -y`. Unfinished calls without an end are left out.
    pub(crate) fn parse(text: &str) -> Trace {
        let mut open: HashMap<&str, (usize, String)> = HashMap::new();
        let mut calls = Vec::new();
        for (at, line) in text.lines().enumerate() {
            let Some((pid, rest)) = line.split_once(' ') else { continue };
            let rest = rest.trim_start();
            if let Some(head) = rest.strip_suffix("<unfinished ...>") {
                open.insert(pid, (at, head.to_owned()));
            } else if let Some((_, tail)) = rest.split_once(" resumed>") {
                let Some((begin, head)) = open.remove(pid) else { continue };
                calls.extend(Call::parse(format!("{head}{tail}"), begin, at));
            } else {
                calls.extend(Call::parse(rest.to_owned(), at, at));
            }
        }
        calls.sort_by_key(|call| call.begin);
        Trace(calls)
    }

    /// How many answers of 202 were written.
    pub(crate) fn acks(&self) -> usize {
        self.0.iter().filter(|call| call.is_ack()).count()
    }

    /// How many times a checkpoint slot was written.
    pub(crate) fn checkpoints(&self) -> usize {
        self.0.iter().filter(|call| call.is_checkpoint()).count()
    }

    /// How many files were published in a table.
    pub(crate) fn published(&self) -> usize {
        self.0.iter().filter(|call| call.publishes().is_some()).count()
    }

    /// F1: before each 202, and after the request came, rows were written to a segment and synced.
    /// Valid for one client that waits for each answer.
    pub(crate) fn acks_before_sync(&self) -> Vec<String> {
        let late = |ack: &&Call| {
            let asked = self.0.iter().rev().find(|call| call.is_post() && call.end < ack.begin);
            let since = asked.map_or(0, |call| call.begin);
            !self.0.iter().any(|write| {
                write.is_write_to("/seg-")
                    && write.result >= ROWS_BYTES
                    && write.begin > since
                    && self.synced(write.path(), write.end, ack.begin)
            })
        };
        let acks = self.0.iter().filter(|call| call.is_ack());
        acks.filter(late)
            .map(|ack| format!("line {}: 202 before its sync", ack.begin + 1))
            .collect()
    }

    /// Before each checkpoint write, every file published in a table was synced before it was linked,
    /// and its directory and every new directory's parent after. Valid while nothing else is flushed.
    pub(crate) fn checkpoints_before_sync(&self) -> Vec<String> {
        let mut faults = Vec::new();
        for checkpoint in self.0.iter().filter(|call| call.is_checkpoint()) {
            for call in self.0.iter().filter(|call| call.end < checkpoint.begin) {
                let when = format!("line {}: checkpoint", checkpoint.begin + 1);
                if let Some((from, to)) = call.publishes() {
                    if let Some(write) = self.dirty(from, call.begin) {
                        faults
                            .push(format!("{when}: {to} was linked, line {} unsynced", write + 1));
                    }
                    if !self.synced(parent(to), call.end, checkpoint.begin) {
                        faults.push(format!("{when}: the directory of {to} is not synced"));
                    }
                } else if let Some(made) = call.makes_directory()
                    && !self.synced(parent(made), call.end, checkpoint.begin)
                {
                    faults.push(format!("{when}: the parent of {made} is not synced"));
                }
            }
        }
        faults
    }

    /// The last write to `path` that no sync followed before `until`.
    fn dirty(&self, path: &str, until: usize) -> Option<usize> {
        let writes = self.0.iter().filter(|call| call.is_write() && call.path() == path);
        writes
            .filter(|write| write.begin < until && !self.synced(path, write.end, until))
            .map(|write| write.begin)
            .next_back()
    }

    fn synced(&self, path: &str, after: usize, before: usize) -> bool {
        self.0.iter().any(|call| {
            matches!(call.name.as_str(), "fsync" | "fdatasync")
                && call.result == 0
                && call.path() == path
                && call.begin > after
                && call.end < before
        })
    }
}

impl Call {
    fn parse(text: String, begin: usize, end: usize) -> Option<Call> {
        let (name, _) = text.split_once('(')?;
        let (_, result) = text.rsplit_once(" = ")?;
        let result = result.split([' ', '<']).next()?.parse().ok()?;
        Some(Call { name: name.to_owned(), begin, end, result, text })
    }

    /// What `-y` says the first descriptor is.
    fn path(&self) -> &str {
        let args = self.text.split_once('(').map_or("", |(_, args)| args);
        let digits = args.trim_start_matches(|c: char| c.is_ascii_digit());
        let path = digits.strip_prefix('<').and_then(|rest| rest.split_once('>'));
        path.map_or("", |(path, _)| path)
    }

    /// The quoted arguments of a call that names paths.
    fn quoted(&self) -> impl Iterator<Item = &str> {
        self.text.split('"').skip(1).step_by(2)
    }

    fn is_write(&self) -> bool {
        let writes = ["write", "pwrite64", "writev", "pwritev", "pwritev2"];
        writes.contains(&self.name.as_str()) && self.result > 0
    }

    fn is_write_to(&self, part: &str) -> bool {
        self.is_write() && self.path().contains(part)
    }

    fn is_checkpoint(&self) -> bool {
        self.is_write_to("/ckpt.")
    }

    fn is_ack(&self) -> bool {
        let sends = ["write", "writev", "sendto", "sendmsg"];
        sends.contains(&self.name.as_str()) && self.text.contains("\"HTTP/1.1 202")
    }

    fn is_post(&self) -> bool {
        matches!(self.name.as_str(), "read" | "recvfrom") && self.text.contains("\"POST /ingest/")
    }

    /// From and to, where this call gives a file of a table its name.
    fn publishes(&self) -> Option<(&str, &str)> {
        let named = self.name.starts_with("link") || self.name.starts_with("rename");
        let mut paths = self.quoted();
        let (from, to) = (paths.next()?, paths.next()?);
        (named && self.result == 0 && to.contains("/lake/")).then_some((from, to))
    }

    fn makes_directory(&self) -> Option<&str> {
        let path = self.quoted().next()?;
        let made = self.name.starts_with("mkdir") && self.result == 0;
        (made && path.contains("/lake/")).then_some(path)
    }
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

#[cfg(test)]
mod tests {
    use super::*;

    const READ: &str =
        "7 recvfrom(9<socket:[1]>, \"POST /ingest/a HTTP/1.1\"..., 8192, 0, NULL, NULL) = 900\n";
    const WRITE: &str = "8 pwrite64(5</d/seg-0.log>, \"..\"..., 12288, 4096) = 12288\n";
    const SYNC: &str = "8 fdatasync(5</d/seg-0.log>) = 0\n";
    const ACK: &str =
        "7 sendto(9<socket:[1]>, \"HTTP/1.1 202 Accepted\"..., 80, 0, NULL, 0) = 80\n";

    #[test]
    fn a_202_after_its_sync_is_in_order() {
        let trace = Trace::parse(&[READ, WRITE, SYNC, ACK].concat());
        assert_eq!((trace.acks(), trace.acks_before_sync()), (1, vec![]));
    }

    #[test]
    fn a_202_before_its_sync_is_found() {
        for order in [[READ, WRITE, ACK, SYNC], [WRITE, SYNC, READ, ACK], [READ, SYNC, WRITE, ACK]]
        {
            assert_eq!(Trace::parse(&order.concat()).acks_before_sync().len(), 1, "{order:?}");
        }
        let halves =
            ["8 fdatasync(5</d/seg-0.log> <unfinished ...>\n", "8 <... fdatasync resumed>) = 0\n"];
        let early = [READ, WRITE, halves[0], ACK, halves[1]].concat();
        assert_eq!(Trace::parse(&early).acks_before_sync().len(), 1);
        let in_time = [READ, WRITE, halves[0], halves[1], ACK].concat();
        assert_eq!(Trace::parse(&in_time).acks_before_sync().len(), 0);
        let failed =
            [READ, WRITE, "8 fdatasync(5</d/seg-0.log>) = -1 EIO (Input/output error)\n", ACK];
        assert_eq!(Trace::parse(&failed.concat()).acks_before_sync().len(), 1);
    }

    #[test]
    fn a_checkpoint_before_the_table_is_synced_is_found() {
        let made = "3 mkdirat(AT_FDCWD</r>, \"/d/lake/s\", 0777) = 0\n";
        let made_synced = "3 fsync(4</d/lake>) = 0\n";
        let data = "3 write(6</d/lake/s/.tmp1>, \"PAR1\"..., 100) = 100\n";
        let data_synced = "3 fdatasync(6</d/lake/s/.tmp1>) = 0\n";
        let linked = "3 linkat(AT_FDCWD</r>, \"/d/lake/s/.tmp1\", AT_FDCWD</r>, \"/d/lake/s/a.parquet\", 0) = 0\n";
        let dir_synced = "3 fsync(7</d/lake/s>) = 0\n";
        let checkpoint = "8 pwrite64(5</d/ckpt.a>, \"..\"..., 4096, 0) = 4096\n";
        let good = [made, made_synced, data, data_synced, linked, dir_synced, checkpoint];
        let trace = Trace::parse(&good.concat());
        assert_eq!((trace.checkpoints(), trace.published()), (1, 1));
        assert_eq!(trace.checkpoints_before_sync(), Vec::<String>::new());
        for left_out in [1, 3, 5] {
            let lines: Vec<&str> = good
                .iter()
                .enumerate()
                .filter(|(at, _)| *at != left_out)
                .map(|(_, line)| *line)
                .collect();
            assert_eq!(
                Trace::parse(&lines.concat()).checkpoints_before_sync().len(),
                1,
                "{left_out}"
            );
        }
    }
}
