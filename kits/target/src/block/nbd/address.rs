//! Where an export is: [`NbdAddress`].

use percent_encoding::percent_decode_str;
use std::fmt;
use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// The port of NBD (IANA).
const PORT: u16 = 10809;

/// How long a TCP connection may take to be made.
const CONNECT: Duration = Duration::from_secs(10);

/// An export of an NBD server, as the URI that qemu and libnbd take: `nbd://HOST[:PORT]/EXPORT` or
/// `nbd+unix:///EXPORT?socket=PATH`. TLS (`nbds:`) is not spoken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NbdAddress {
    /// Where the server listens.
    pub server: NbdServer,
    /// The name of the export; empty for the server's default.
    pub export: String,
}

/// Where an NBD server listens.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum NbdServer {
    /// Host name or address, and port.
    Tcp(String, u16),
    /// A socket of this machine.
    Unix(PathBuf),
}

/// What is wrong with a URI.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "'{uri}' is no NBD address ({why}): expected nbd://HOST[:PORT]/EXPORT or nbd+unix:///EXPORT?socket=PATH"
)]
pub struct NbdAddressError {
    uri: String,
    why: &'static str,
}

impl FromStr for NbdAddress {
    type Err = NbdAddressError;

    fn from_str(uri: &str) -> Result<Self, NbdAddressError> {
        let error = |why| NbdAddressError { uri: uri.to_owned(), why };
        let url = url::Url::parse(uri).map_err(|_| error("not a URI"))?;
        let decode = |text: &str| {
            percent_decode_str(text).decode_utf8().map(|t| t.into_owned()).map_err(|_| error("not UTF-8"))
        };
        let export = decode(url.path().strip_prefix('/').unwrap_or(url.path()))?;
        if export.len() > 4096 {
            return Err(error("the name of the export is longer than 4096 bytes"));
        }
        let server = match url.scheme() {
            "nbd" => {
                let host = url.host_str().filter(|h| !h.is_empty()).ok_or_else(|| error("no host"))?;
                let host = host.trim_start_matches('[').trim_end_matches(']');
                NbdServer::Tcp(host.to_owned(), url.port().unwrap_or(PORT))
            }
            "nbd+unix" => {
                let socket = url.query_pairs().find(|(key, _)| key == "socket");
                let (_, path) = socket.ok_or_else(|| error("no socket"))?;
                NbdServer::Unix(path.into_owned().into())
            }
            "nbds" | "nbds+unix" => return Err(error("TLS is not spoken")),
            _ => return Err(error("another scheme")),
        };
        Ok(Self { server, export })
    }
}

impl fmt::Display for NbdAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.server {
            NbdServer::Tcp(host, port) if host.contains(':') => {
                write!(f, "nbd://[{host}]:{port}/{}", self.export)
            }
            NbdServer::Tcp(host, port) => write!(f, "nbd://{host}:{port}/{}", self.export),
            NbdServer::Unix(path) => write!(f, "nbd+unix:///{}?socket={}", self.export, path.display()),
        }
    }
}

/// A connection to a server.
#[derive(Debug)]
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl NbdServer {
    pub(super) fn connect(&self) -> io::Result<Stream> {
        match self {
            Self::Unix(path) => Ok(Stream::Unix(UnixStream::connect(path)?)),
            Self::Tcp(host, port) => {
                let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
                for address in (host.as_str(), *port).to_socket_addrs()? {
                    match TcpStream::connect_timeout(&address, CONNECT) {
                        Ok(stream) => {
                            stream.set_nodelay(true)?;
                            // A server that vanished without a word is noticed within a minute.
                            let keepalive = socket2::TcpKeepalive::new()
                                .with_time(Duration::from_secs(20))
                                .with_interval(Duration::from_secs(10));
                            socket2::SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
                            return Ok(Stream::Tcp(stream));
                        }
                        Err(error) => last = error,
                    }
                }
                Err(last)
            }
        }
    }
}

impl Stream {
    /// How long a read or write may wait; `None` is for ever.
    pub(super) fn set_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        match self {
            Self::Tcp(s) => s.set_read_timeout(timeout).and_then(|()| s.set_write_timeout(timeout)),
            Self::Unix(s) => s.set_read_timeout(timeout).and_then(|()| s.set_write_timeout(timeout)),
        }
    }

    /// Ends both directions; whoever waits in a read or write is told.
    pub(super) fn shutdown(&self) {
        let _ = match self {
            Self::Tcp(s) => s.shutdown(Shutdown::Both),
            Self::Unix(s) => s.shutdown(Shutdown::Both),
        };
    }
}

impl Read for &Stream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(s) => (&mut &*s).read(into),
            Stream::Unix(s) => (&mut &*s).read(into),
        }
    }
}

impl Write for &Stream {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(s) => (&mut &*s).write(from),
            Stream::Unix(s) => (&mut &*s).write(from),
        }
    }

    fn write_vectored(&mut self, from: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Stream::Tcp(s) => (&mut &*s).write_vectored(from),
            Stream::Unix(s) => (&mut &*s).write_vectored(from),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (uri, server, export) in [
            ("nbd://storage.example", NbdServer::Tcp("storage.example".into(), 10809), ""),
            ("nbd://127.0.0.1:10810/disk%201", NbdServer::Tcp("127.0.0.1".into(), 10810), "disk 1"),
            ("nbd://[::1]/a/b", NbdServer::Tcp("::1".into(), 10809), "a/b"),
            ("nbd+unix:///x?socket=/run/n%20bd.sock", NbdServer::Unix("/run/n bd.sock".into()), "x"),
            ("nbd+unix:///?socket=/run/nbd", NbdServer::Unix("/run/nbd".into()), ""),
        ] {
            let expected = NbdAddress { server, export: export.into() };
            assert_eq!(uri.parse(), Ok(expected.clone()), "{uri}");
        }
    }

    #[test]
    fn mistakes_say_what_to_do() {
        for (uri, why) in [
            ("nbd", "not a URI"),
            ("nbd:///x", "no host"),
            ("nbd+unix:///x", "no socket"),
            ("nbds://host/x", "TLS"),
            ("http://host/x", "another scheme"),
        ] {
            let error = uri.parse::<NbdAddress>().unwrap_err().to_string();
            assert!(
                error.contains(why) && error.contains("nbd+unix:///EXPORT?socket=PATH"),
                "{uri}: {error}"
            );
        }
    }
}
