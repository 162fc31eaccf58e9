//! A request to a running server, over plain HTTP. One connection, one request.

use anyhow::{Context, anyhow, bail};
use bytes::Bytes;
use forebay_flow::{Ctx, Task};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{self, HeaderName};
use hyper::{Method, Request, Response, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Posts `body` to `path` at `url`. The answer can be read while the task lives.
pub(super) async fn post(
    url: &str,
    path: &str,
    content_type: &str,
    accept: &str,
    body: Bytes,
) -> anyhow::Result<(Response<Incoming>, Task<()>)> {
    let headers = [(header::CONTENT_TYPE, content_type), (header::ACCEPT, accept)];
    exchange(url, Method::POST, path, &headers, body).await
}

/// One request, and its answer's head. The rest can be read while the task lives.
pub(super) async fn exchange(
    url: &str,
    method: Method,
    path: &str,
    headers: &[(HeaderName, &str)],
    body: Bytes,
) -> anyhow::Result<(Response<Incoming>, Task<()>)> {
    let base: Uri = url.parse().with_context(|| format!("`{url}` is not a URL"))?;
    if base.scheme_str() != Some("http") {
        bail!("`{url}` must begin with http://");
    }
    let host = base.host().ok_or_else(|| anyhow!("`{url}` names no host"))?;
    let port = base.port_u16().unwrap_or(80);
    let socket = TcpStream::connect((host.trim_matches(['[', ']']), port))
        .await
        .with_context(|| format!("no server answers at {url}; is `forebay serve` running?"))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(socket)).await?;
    let authority = base.authority().map_or(host, |authority| authority.as_str());
    let mut request = Request::builder().method(method).uri(path).header(header::HOST, authority);
    for (name, value) in headers {
        request = request.header(name, *value);
    }
    if let Ok(token) = std::env::var("FOREBAY_TOKEN") {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    let request = request.body(Full::new(body))?;
    let driver = Ctx::root("client").spawn("connection", async {
        // What breaks the connection breaks the answer too, and is told there.
        drop(connection.await);
    });
    Ok((sender.send_request(request).await?, driver))
}
