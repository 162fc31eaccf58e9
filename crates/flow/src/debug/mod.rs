//! Debug pages for any HTTP server: what every task, queue, lock and supervisor is doing now. Behind the feature
//! `debug-routes`.
//!
//! Owns nothing. [`respond`] is a function from a path and a query to a page; [`Routes`] wraps it as a service for axum,
//! hyper and tower. It changes nothing and stops nobody: a page of 100,000 tasks is gathered between other tasks' turns.
//! Every page is bounded, and says what it left off.
//!
//! | page | shows | parameters |
//! |---|---|---|
//! | `/debug` | this list | |
//! | `/debug/tasks` | tasks and threads, grouped by place, with what they wait for and since when | `name`, `place`, `stacks`, `limit`, `format` |
//! | `/debug/queues` | every queue: bound, depth, policy, who waits, what was lost | `name`, `limit`, `format` |
//! | `/debug/locks` | tasks that wait for each other for ever; locks by place: waits, who holds them | `name`, `place`, `limit`, `format` |
//! | `/debug/tree` | supervisors with their children's states and restarts; contexts with their tasks | `limit`, `format` |
//!
//! `name` and `place` keep what contains the text; `stacks=N` asks N idle tasks of each group for their stack (they are
//! polled once more for it); `limit=N` shows N groups or lines instead of a hundred; `format=json` is for programs, with
//! field names that stay. A parameter that is not known, or makes no sense, is answered by 400 and a sentence.
//!
//! The pages show names, places in the source and counts, no data. Still, serve them where only operators reach them.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! use forebay_flow::{Ctx, debug};
//! let ctx = Ctx::root("app");
//! let _task = ctx.spawn("idle example", std::future::pending::<()>());
//! let page = debug::respond("/debug/tasks", Some("name=idle+ex")).await.unwrap();
//! assert_eq!(page.status, 200);
//! assert!(page.body.contains("1 × idle example [idle"), "{}", page.body);
//! assert_eq!(debug::respond("/debug/tasks", Some("frobnicate=1")).await.unwrap().status, 400);
//! assert!(debug::respond("/metrics", None).await.is_none());
//! # }
//! ```

mod locks;
mod query;
mod queues;
mod routes;
mod tasks;
mod tree;

use serde_json::Value;

use self::query::{Format, Query};

pub use self::routes::Routes;

/// The most groups or lines that one page shows, whatever its `limit`.
pub const MAX_SHOWN: usize = 1000;

/// An answer, for any server to send.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reply {
    /// 200, or 400 for a query that makes no sense.
    pub status: u16,
    /// The `Content-Type`.
    pub content_type: &'static str,
    /// The page; for 400 a sentence that says what is wrong.
    pub body: String,
}

/// The page at `path`, which may also be given without its `/debug` (as a nested router does). `None` when there is none:
/// answer 404.
///
/// # Cancel safety
/// Dropped, it changes nothing. Tasks that were asked for their stack still get their one poll.
///
/// # Panics
/// Outside of a Tokio runtime with a timer.
pub async fn respond(path: &str, query: Option<&str>) -> Option<Reply> {
    let page = path.strip_prefix("/debug").unwrap_or(path).trim_matches('/');
    let known: &[&str] = match page {
        "" => &[],
        "tasks" => &["name", "place", "stacks", "limit", "format"],
        "queues" => &["name", "limit", "format"],
        "locks" => &["name", "place", "limit", "format"],
        "tree" => &["limit", "format"],
        _ => return None,
    };
    let query = match Query::parse(query.unwrap_or_default(), known) {
        Ok(query) => query,
        Err(why) => return Some(text(400, format!("{why}\n"))),
    };
    let page = match page {
        "tasks" => tasks::page(&query).await,
        "queues" => queues::page(&query),
        "locks" => locks::page(&query).await,
        "tree" => tree::page(&query),
        _ => Page { text: INDEX.to_owned(), json: None },
    };
    Some(match page.json {
        Some(json) => {
            Reply { status: 200, content_type: "application/json", body: format!("{json}\n") }
        }
        None => text(200, page.text),
    })
}

const INDEX: &str = "\
/debug/tasks   tasks and threads by place, and what they wait for: ?name= ?place= ?stacks=N ?limit=N ?format=json
/debug/queues  queues: bound, depth, policy, who waits, what was lost: ?name= ?limit=N ?format=json
/debug/locks   deadlocks; locks by place: waits, who holds them: ?name= ?place= ?limit=N ?format=json
/debug/tree    supervisors and contexts: ?limit=N ?format=json
";

fn text(status: u16, body: String) -> Reply {
    Reply { status, content_type: "text/plain; charset=utf-8", body }
}

/// One page in the format that was asked for.
struct Page {
    text: String,
    json: Option<String>,
}

impl Page {
    fn new(format: Format, text: impl FnOnce() -> String, json: impl FnOnce() -> Value) -> Self {
        match format {
            Format::Text => Self { text: text(), json: None },
            Format::Json => Self { text: String::new(), json: Some(json().to_string()) },
        }
    }
}

/// Lines of cells under a head, each column as wide as its widest cell; the first column is left, numbers are right.
struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    fn new(head: &[&str]) -> Self {
        Self { rows: vec![head.iter().map(|cell| (*cell).to_owned()).collect()] }
    }

    fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    fn write(&self, out: &mut String) {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or_default();
        let width = |at: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(at));
            cells.map(|cell| cell.chars().count()).max().unwrap_or_default()
        };
        let widths: Vec<_> = (0..columns).map(width).collect();
        for row in &self.rows {
            let mut line = String::new();
            for (at, (cell, width)) in row.iter().zip(&widths).enumerate() {
                let digit = cell.starts_with(|first: char| first.is_ascii_digit());
                // The last column is for words.
                let number = digit && at + 1 < columns;
                line.push_str(&match number {
                    true => format!("{cell:>width$}  "),
                    false => format!("{cell:<width$}  "),
                });
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
    }
}

/// The line below a list that is not whole.
fn left_off(out: &mut String, count: usize, what: &str) {
    if count > 0 {
        out.push_str(&format!("\nand {count} {what} more: see ?limit=\n"));
    }
}
