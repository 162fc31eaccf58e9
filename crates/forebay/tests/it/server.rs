//! A server in the test's process, and a client that writes bytes as they are.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use forebay::api::{self, Telemetry};
use forebay::config::{Config, Sources};
use forebay::http::{self, App};
use forebay::telemetry::{self, Log, http::Metrics};
use forebay_flow::supervise::{Child, GaveUp, Strategy, Supervisor};
use forebay_flow::{Cause, Ctx, Task, clock};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A running server. It ends with [`Server::stop`], or with the test.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) app: Arc<App>,
    pub(crate) config: Arc<Config>,
    ctx: Ctx,
    tree: Ctx,
    pub(crate) engine: api::Engine,
    root: Task<Result<(), GaveUp>>,
    dir: tempfile::TempDir,
}

impl Server {
    /// Starts a server with these settings, on a free port and in a fresh directory.
    pub(crate) async fn start(toml: &str) -> Server {
        let dir = tempfile::tempdir().unwrap();
        let sources = Sources {
            file: Some(("test.toml".to_owned(), toml.to_owned())),
            env: vec![("FOREBAY_FAULTS".to_owned(), "1".to_owned())],
            flags: forebay::config::Flags {
                data_dir: Some(dir.path().join("data")),
                listen: Some("127.0.0.1:0".to_owned()),
            },
        };
        let config: Arc<Config> = Arc::new(sources.load().unwrap().config);
        let registry = prometheus::Registry::new();
        telemetry::register(&registry, &Log::none()).unwrap();
        let metrics = Metrics::new(&registry).unwrap();
        let pipeline = Arc::new(Telemetry::new(&registry).unwrap());
        let ctx = Ctx::root("test");
        let engine = api::open(&ctx, &config, Arc::clone(&pipeline)).await.unwrap();
        telemetry::register_pools(&registry, &engine).unwrap();
        let listener = Arc::new(http::bind(config.listen).unwrap());
        let address = listener.local_addr().unwrap();
        let app = App::new(engine.clone(), Arc::clone(&config), registry, pipeline, metrics);
        let served = Arc::clone(&app);
        let root = Supervisor::new("root", Strategy::RestForOne)
            .child(engine.supervisor().unwrap())
            .child(
                Child::new("http", move |ctx| {
                    http::serve(ctx, Arc::clone(&served), Arc::clone(&listener))
                })
                .ready_within(Duration::from_secs(60)),
            );
        let tree = ctx.child("tree");
        let root = tree.spawn("root", root.run(tree.clone()));
        let server = Server { address, app, config, ctx, tree, engine, root, dir };
        while server.get("/readyz").await.status != 200 {}
        server
    }

    /// Where the server keeps everything.
    pub(crate) fn data_dir(&self) -> std::path::PathBuf {
        self.dir.path().join("data")
    }

    /// Drains and stops; nothing may be left of it.
    pub(crate) async fn stop(self) {
        self.app.begin_drain();
        let end = clock::now() + Duration::from_secs(20);
        assert_eq!(self.app.settled(end).await, 0);
        let receipt = self.engine.drain(end).await;
        assert_eq!(receipt.lost, 0);
        self.tree.cancel(Cause::Shutdown);
        self.root.join().await.unwrap().unwrap();
        self.engine.close().await;
        self.ctx.cancel(Cause::Shutdown);
        drop((self.app, self.engine));
        forebay_flow::leak::check(&self.ctx).await.unwrap();
    }

    /// Sends bytes on a fresh connection and reads one answer.
    pub(crate) async fn raw(&self, bytes: &[u8]) -> Answer {
        let mut connection = self.connect().await;
        connection.send(bytes).await;
        connection.answer().await.unwrap()
    }

    pub(crate) async fn connect(&self) -> Connection {
        Connection { socket: TcpStream::connect(self.address).await.unwrap(), read: Vec::new() }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.raw(format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.address).as_bytes()).await
    }

    pub(crate) async fn post(&self, path: &str, headers: &str, body: &str) -> Answer {
        self.raw(self.request("POST", path, headers, body).as_bytes()).await
    }

    pub(crate) fn request(&self, method: &str, path: &str, headers: &str, body: &str) -> String {
        format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\n{headers}Content-Length: {}\r\n\r\n{body}",
            self.address,
            body.len()
        )
    }

    pub(crate) async fn ndjson(&self, stream: &str, body: &str) -> Answer {
        self.post(&format!("/ingest/{stream}"), "Content-Type: application/x-ndjson\r\n", body)
            .await
    }
}

/// One connection; answers are read one after another.
pub(crate) struct Connection {
    pub(crate) socket: TcpStream,
    read: Vec<u8>,
}

impl Connection {
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).await.unwrap();
    }

    /// The next answer; `None` when the server closed without one, or midway.
    pub(crate) async fn answer(&mut self) -> Option<Answer> {
        let end = loop {
            if let Some(at) = self.read.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            self.more().await?;
        };
        let head = String::from_utf8(self.read.drain(..end).collect()).unwrap();
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let mut answer = Answer { status, headers, body: Vec::new() };
        if status == 100 || status == 204 {
            return Some(answer);
        }
        if answer.header("transfer-encoding").is_some() {
            answer.body = self.chunked().await?;
        } else {
            let length = answer.header("content-length").map_or(0, |text| text.parse().unwrap());
            while self.read.len() < length {
                self.more().await?;
            }
            answer.body = self.read.drain(..length).collect();
        }
        Some(answer)
    }

    async fn chunked(&mut self) -> Option<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let at = loop {
                if let Some(at) = self.read.windows(2).position(|window| window == b"\r\n") {
                    break at;
                }
                self.more().await?;
            };
            let line: Vec<u8> = self.read.drain(..at + 2).collect();
            let length =
                usize::from_str_radix(std::str::from_utf8(&line).unwrap().trim(), 16).unwrap();
            while self.read.len() < length + 2 {
                self.more().await?;
            }
            body.extend(self.read.drain(..length));
            self.read.drain(..2);
            if length == 0 {
                return Some(body);
            }
        }
    }

    async fn more(&mut self) -> Option<()> {
        let mut buffer = vec![0; 16 << 10];
        let read =
            tokio::time::timeout(Duration::from_secs(20), self.socket.read(&mut buffer)).await;
        assert!(read.is_ok(), "the server neither answered nor closed");
        let read = read.unwrap();
        match read {
            Ok(read) if read > 0 => {
                self.read.extend_from_slice(&buffer[..read]);
                Some(())
            }
            _ => None,
        }
    }

    /// True once the server has closed its side.
    pub(crate) async fn closed(&mut self) -> bool {
        while self.more().await.is_some() {}
        true
    }
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Asserts a problem of this status and type, and gives its body.
    pub(crate) fn problem(&self, status: u16, code: &str) -> Value {
        assert_eq!(self.status, status, "{}", self.text());
        assert_eq!(self.header("content-type"), Some("application/problem+json"));
        let body = self.json();
        assert_eq!(body["type"], format!("/problems/{code}"), "{body}");
        assert_eq!(body["status"], status);
        assert_eq!(body["request_id"].as_str(), self.header("x-request-id"));
        assert!(!body["detail"].as_str().unwrap().is_empty());
        body
    }
}
