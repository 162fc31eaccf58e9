//! A small blocking HTTP/1.1 client: one connection a request, every answer read whole or an error.
//!
//! It hides nothing: a connection that ends early is an error, never a shorter body.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// Longer than the server's own deadline, so that the server is the one to give up.
const TIMEOUT: Duration = Duration::from_secs(60);

/// An answer, read to its end.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// A header's value, by its name in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; panics with the answer if it is none.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("no JSON ({error}) in {} {}", self.status, self.text()))
    }

    /// True for 2xx.
    pub(crate) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// A request to be sent over a connection of its own.
#[derive(Debug, Clone)]
pub(crate) struct Request<'a> {
    head: String,
    body: &'a [u8],
}

impl<'a> Request<'a> {
    /// A request without a body.
    pub(crate) fn get(path: &str) -> Request<'a> {
        Request { head: head("GET", path), body: b"" }
    }

    /// A request with a body of a type.
    pub(crate) fn post(path: &str, content_type: &str, body: &'a [u8]) -> Request<'a> {
        let head = head("POST", path);
        let length = body.len();
        let head = format!("{head}Content-Type: {content_type}\r\nContent-Length: {length}\r\n");
        Request { head, body }
    }

    /// Adds a header.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Request<'a> {
        self.head.push_str(&format!("{name}: {value}\r\n"));
        self
    }

    /// Sends it and reads the answer. An error means that the outcome is unknown.
    pub(crate) fn send(&self, address: SocketAddr) -> io::Result<Answer> {
        let mut stream = connect(address)?;
        // A server may answer before it has read all: the answer counts, not our broken pipe.
        let sent = stream
            .write_all(format!("{}\r\n", self.head).as_bytes())
            .and_then(|()| stream.write_all(self.body));
        read_answer(&mut BufReader::new(stream)).map_err(|error| sent.err().unwrap_or(error))
    }
}

/// The head's beginning, without the empty line.
pub(crate) fn head(method: &str, path: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n")
}

/// A connection with timeouts.
pub(crate) fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, Duration::from_secs(10))?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Reads one answer whole.
pub(crate) fn read_answer(reader: &mut impl BufRead) -> io::Result<Answer> {
    let status_line = read_line(reader)?;
    let status = status_line.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status: u16 = status.ok_or_else(|| bad(&format!("status line `{status_line}`")))?;
    let mut headers = Vec::new();
    loop {
        let line = read_line(reader)?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').ok_or_else(|| bad("header without a colon"))?;
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let mut answer = Answer { status, headers, body: Vec::new() };
    if answer.header("transfer-encoding").is_some_and(|coding| coding.contains("chunked")) {
        read_chunks(reader, &mut answer.body)?;
    } else if let Some(length) = answer.header("content-length") {
        let length = length.parse().map_err(|_| bad("content-length"))?;
        answer.body.resize(length, 0);
        reader.read_exact(&mut answer.body)?;
    } else {
        reader.read_to_end(&mut answer.body)?;
    }
    Ok(answer)
}

fn read_chunks(reader: &mut impl BufRead, body: &mut Vec<u8>) -> io::Result<()> {
    loop {
        let size = read_line(reader)?;
        let digits = size.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(digits, 16).map_err(|_| bad("chunk size"))?;
        if size == 0 {
            while !read_line(reader)?.is_empty() {}
            return Ok(());
        }
        let start = body.len();
        body.resize(start + size, 0);
        reader.read_exact(&mut body[start..])?;
        if !read_line(reader)?.is_empty() {
            return Err(bad("chunk end"));
        }
    }
}

fn read_line(reader: &mut impl BufRead) -> io::Result<String> {
    let mut line = Vec::new();
    reader.by_ref().take(64 * 1024).read_until(b'\n', &mut line)?;
    if line.pop() != Some(b'\n') {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    String::from_utf8(line).map_err(|_| bad("bytes that are no text"))
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("not HTTP: {what}"))
}

#[test]
fn a_chunked_answer_cut_short_is_an_error() {
    let whole = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    assert_eq!(read_answer(&mut &whole[..]).unwrap().body, b"abc");
    for cut in 1..whole.len() {
        assert!(read_answer(&mut &whole[..cut]).is_err(), "cut at {cut}");
    }
}
