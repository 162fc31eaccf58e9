//! HTTP: any bytes on a connection of a running server. It answers or closes, and never with a fault of its own.
#![no_main]

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use forebay::api::{self, Telemetry};
use forebay::config::{Flags, Sources};
use forebay::http::{self, App};
use forebay::telemetry::http::Metrics;
use forebay_flow::Ctx;
use forebay_flow::supervise::{Child, Strategy, Supervisor};
use libfuzzer_sys::fuzz_target;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;

/// A head that may be slow for a moment only, and few streams.
const CONFIG: &str = "[limits]\nstreams = 8\n[http]\nheader_deadline = \"100ms\"\nmin_rate = \"1MB\"\n\
                      rate_window = \"50ms\"\nrate_grace = \"50ms\"\n[streams.s]\nschema = \"a BIGINT, b TEXT\"\n";

struct Server {
    runtime: Runtime,
    address: SocketAddr,
}

fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| start().unwrap_or_else(|error| panic!("{error}")))
}

fn start() -> Result<Server, String> {
    let told = |error: &dyn std::fmt::Display| error.to_string();
    let runtime = Runtime::new().map_err(|error| told(&error))?;
    // Kept as long as the process lives.
    let dir = tempfile::tempdir().map_err(|error| told(&error))?.keep();
    let flags = Flags { data_dir: Some(dir), listen: Some("127.0.0.1:0".to_owned()) };
    let file = Some(("fuzz.toml".to_owned(), CONFIG.to_owned()));
    let config = Sources { file, env: Vec::new(), flags }.load().map_err(|error| told(&error))?;
    let config = Arc::new(config.config);
    let address = runtime.block_on(async {
        let registry = prometheus::Registry::new();
        let metrics = Metrics::new(&registry).map_err(|error| told(&error))?;
        let pipeline = Arc::new(Telemetry::new(&registry).map_err(|error| told(&error))?);
        let ctx = Ctx::root("fuzz");
        let engine = api::open(&ctx, &config, Arc::clone(&pipeline)).await?;
        let listener = Arc::new(http::bind(config.listen)?);
        let address = listener.local_addr().map_err(|error| told(&error))?;
        let lanes = engine.supervisor().ok_or("no lanes")?;
        let app = App::new(engine, config, registry, pipeline, metrics);
        let root = Supervisor::new("root", Strategy::RestForOne).child(lanes).child(
            Child::new("http", move |ctx| {
                http::serve(ctx, Arc::clone(&app), Arc::clone(&listener))
            })
            .ready_within(Duration::from_secs(60)),
        );
        std::mem::forget(ctx.spawn("root", root.run(ctx.clone())));
        Ok::<_, String>(address)
    })?;
    Ok(Server { runtime, address })
}

fuzz_target!(|bytes: &[u8]| {
    let server = server();
    server.runtime.block_on(async {
        let Ok(mut socket) = TcpStream::connect(server.address).await else { return };
        drop(socket.write_all(bytes).await);
        drop(socket.shutdown().await);
        let mut answer = Vec::new();
        let read = socket.read_to_end(&mut answer);
        assert!(tokio::time::timeout(Duration::from_secs(20), read).await.is_ok(), "F5: it hangs");
        assert!(!answer.starts_with(b"HTTP/1.1 500"), "{}", String::from_utf8_lossy(&answer));
    });
});
