//! Debug pages on an axum server, periodic snapshots, and a dump on SIGQUIT:
//! `cargo run -p forebay-flow --example debug_routes -- 127.0.0.1:8080`, then `curl 'localhost:8080/debug/tasks?stacks=1'`.
//!
//! Without an address it takes any free port, asks itself for two pages, prints them and ends.

use std::convert::Infallible;
use std::error::Error;

use axum::Router;
use axum::routing::get;
use forebay_flow::debug::Routes;
use forebay_flow::queue::{self, Bound, Full};
use forebay_flow::snapshot::{Config, Periodic};
use forebay_flow::supervise::{Child, Strategy, Supervisor};
use forebay_flow::{Cause, Ctx, sigquit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let ctx = Ctx::root("example");
    let _sigquit = sigquit::dump_to_stderr(&ctx)?;
    let address = std::env::args().nth(1);
    let listener = TcpListener::bind(address.as_deref().unwrap_or("127.0.0.1:0")).await?;
    let bound_to = listener.local_addr()?;
    println!("serving http://{bound_to}/debug");

    let (jobs, work) = queue::bounded::<u32>("jobs", Bound::items(8), Full::Block);
    let periodic = Periodic::new(Config::default());
    let snapshots = periodic.reader();
    let supervisor = Supervisor::new("root", Strategy::OneForOne)
        .child(Child::new("worker", move |ctx: Ctx| {
            let work = work.clone();
            async move {
                while let Ok(Some(job)) = ctx.run(work.recv()).await {
                    println!("job {job}");
                }
                Ok::<(), Infallible>(())
            }
        }))
        .child(Child::new("snapshot", move |ctx| periodic.clone().run(ctx)));
    let supervised = ctx.spawn("supervisor", supervisor.run(ctx.clone()));

    // The whole of the wiring: two routes. Nested, `.nest_service("/debug", Routes)` does it in one.
    let app = Router::new()
        .route("/metrics", get(move || metrics(snapshots.clone())))
        .route_service("/debug", Routes)
        .route_service("/debug/{page}", Routes);
    let (until, served) = (ctx.clone(), axum::serve(listener, app));
    let server = ctx.spawn("server", async move {
        served.with_graceful_shutdown(async move { drop(until.cancelled().await) }).await
    });

    jobs.submit(1).await?;
    if address.is_none() {
        for page in ["/debug/tasks?stacks=1", "/debug/tree"] {
            println!("\n{page}\n{}", ask(bound_to, page).await?);
        }
        ctx.cancel(Cause::Shutdown);
    }
    server.join().await??;
    supervised.join().await??;
    Ok(())
}

async fn metrics(
    mut snapshots: forebay_flow::latest::Reader<forebay_flow::snapshot::Snapshot>,
) -> String {
    let line = |gauge: &forebay_flow::snapshot::Gauge| {
        let labels = gauge.labels.iter().map(|(label, value)| format!("{label}={value:?}"));
        format!("{}{{{}}} {}\n", gauge.name, labels.collect::<Vec<_>>().join(","), gauge.value)
    };
    snapshots.get().gauges().iter().map(line).collect()
}

async fn ask(address: std::net::SocketAddr, page: &str) -> Result<String, Box<dyn Error>> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {page} HTTP/1.1\r\nHost: example\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut response = String::new();
    stream.read_to_string(&mut response).await?;
    Ok(response.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or(response))
}
