//! The stream between a rustls server and a socket of plain values, which passes as much at a time as it is told.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use bytes::BytesMut;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::crypto::ring;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig, ServerConnection};

use super::{TlsClient, TlsStream};
use crate::redis::shared::lock;
use crate::runtime::Stream;

/// What is on its way in both directions.
#[derive(Debug, Default)]
struct Wire {
    to_client: VecDeque<u8>,
    to_server: Vec<u8>,
    /// How many bytes pass in one call, either way.
    step: usize,
    /// How many bytes the server's side has room for.
    room: usize,
    hung_up: bool,
}

#[derive(Clone, Debug)]
struct Socket(Arc<Mutex<Wire>>);

impl Stream for Socket {
    fn poll_read(&mut self, _: &mut Context<'_>, buf: &mut BytesMut) -> Poll<io::Result<usize>> {
        let mut wire = lock(&self.0);
        if wire.to_client.is_empty() && !wire.hung_up {
            return Poll::Pending;
        }
        let n = wire.step.min(wire.to_client.len()).min(buf.capacity() - buf.len());
        buf.extend(wire.to_client.drain(..n));
        Poll::Ready(Ok(n))
    }

    fn poll_write(&mut self, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut wire = lock(&self.0);
        let n = wire.step.min(bytes.len()).min(wire.room.saturating_sub(wire.to_server.len()));
        wire.to_server.extend_from_slice(&bytes[..n]);
        if n == 0 { Poll::Pending } else { Poll::Ready(Ok(n)) }
    }
}

/// Both ends of a connection.
struct Pair {
    wire: Socket,
    client: TlsStream<Socket>,
    server: ServerConnection,
    /// What the server has understood so far.
    understood: Vec<u8>,
}

impl Pair {
    fn new(step: usize) -> Self {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let key = PrivateKeyDer::try_from(signing_key.serialize_der()).expect("a key");
        let provider = Arc::new(ring::default_provider());
        let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)
            .expect("they go together");
        let mut roots = RootCertStore::empty();
        roots.add(cert.der().clone()).expect("a certificate");
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let client = TlsClient {
            config: Arc::new(config),
            name: ServerName::try_from("localhost").expect("a name"),
            shows_certificate: false,
        };
        let wire = Socket(Arc::new(Mutex::new(Wire { step, room: usize::MAX, ..Wire::default() })));
        let mut pair = Self {
            client: client.wrap(wire.clone()).expect("a connection"),
            wire,
            server: ServerConnection::new(Arc::new(server)).expect("a connection"),
            understood: Vec::new(),
        };
        while pair.client.poll_handshake(&mut context()).is_pending() {
            pair.exchange();
        }
        pair.exchange();
        pair
    }

    /// The server reads what has come, and sends what it has.
    fn exchange(&mut self) {
        let mut wire = lock(&self.wire.0);
        let received = std::mem::take(&mut wire.to_server);
        let mut rest = received.as_slice();
        while !rest.is_empty() && self.server.read_tls(&mut rest).expect("room") > 0 {
            self.server.process_new_packets().expect("TLS");
            if let Err(error) = self.server.reader().read_to_end(&mut self.understood) {
                assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
            }
        }
        while self.server.wants_write() {
            let mut sent = Vec::new();
            self.server.write_tls(&mut sent).expect("memory has room");
            wire.to_client.extend(sent);
        }
    }

    fn understood(&mut self) -> &[u8] {
        self.exchange();
        &self.understood
    }

    fn read(&mut self, buf: &mut BytesMut) -> Poll<io::Result<usize>> {
        self.client.poll_read(&mut context(), buf)
    }
}

fn context() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

#[test]
fn bytes_pass_however_the_network_cuts_them() {
    for step in [1, 2, 5, 100, 20_000, usize::MAX] {
        let mut pair = Pair::new(step);
        let sent: Vec<u8> = (0..40_000_u32).map(|n| n as u8).collect();

        let mut written = 0;
        while written < sent.len() {
            if let Poll::Ready(n) = pair.client.poll_write(&mut context(), &sent[written..]) {
                written += n.expect("the server is there");
            }
            pair.exchange();
        }
        assert!(pair.understood == sent, "steps of {step}");

        pair.server.writer().write_all(&sent).expect("room");
        pair.exchange();
        let (mut read, mut buf) = (Vec::new(), BytesMut::with_capacity(7_000));
        loop {
            match pair.read(&mut buf) {
                Poll::Ready(n) => assert!(n.expect("the server is there") > 0),
                // Either it was its turn to let others run, or there is no more.
                Poll::Pending if lock(&pair.wire.0).to_client.is_empty() => break,
                Poll::Pending => {}
            }
            read.extend_from_slice(&buf);
            buf.clear();
        }
        assert!(read == sent, "steps of {step}");
    }
}

/// The lane takes for not sent what is not told to be written; the server must not be able to understand it.
#[test]
fn bytes_are_written_when_the_server_can_understand_them() {
    let mut pair = Pair::new(usize::MAX);
    let command = [b'x'; 100];
    for room in 0.. {
        lock(&pair.wire.0).room = room;
        let written = pair.client.poll_write(&mut context(), &command);
        let record = lock(&pair.wire.0).to_server.len();
        assert_eq!(record, room.min(record));
        if written.is_ready() {
            assert!(record > command.len() && matches!(written, Poll::Ready(Ok(100))), "{written:?}");
            break;
        }
    }
    assert_eq!(pair.understood(), command);
}

#[test]
fn a_socket_that_takes_nothing_lets_nothing_pile_up() {
    let mut pair = Pair::new(usize::MAX);
    lock(&pair.wire.0).room = 0;
    let flood = vec![0; 1 << 20];
    for _ in 0..100 {
        assert!(pair.client.poll_write(&mut context(), &flood).is_pending());
    }
    assert!(pair.client.sealed.len() < 80 << 10, "{} bytes", pair.client.sealed.len());
    lock(&pair.wire.0).room = usize::MAX;
    let written = pair.client.poll_write(&mut context(), &flood);
    assert!(matches!(written, Poll::Ready(Ok(n)) if n == pair.understood().len()), "{written:?}");
}

#[test]
fn new_keys_are_followed_both_ways() {
    let mut pair = Pair::new(usize::MAX);
    pair.server.refresh_traffic_keys().expect("TLS 1.3");
    pair.server.writer().write_all(b"new").expect("room");
    pair.exchange();
    let mut buf = BytesMut::with_capacity(100);
    assert!(matches!(pair.read(&mut buf), Poll::Ready(Ok(3))) && buf == "new"[..]);
    assert!(matches!(pair.client.poll_write(&mut context(), b"keys"), Poll::Ready(Ok(4))));
    assert_eq!(pair.understood(), b"keys");
}

/// What is no TLS is an error, and the server is told of it.
#[test]
fn nonsense_ends_it() {
    let mut pair = Pair::new(usize::MAX);
    lock(&pair.wire.0).to_client.extend(b"-ERR unknown command\r\n");
    let end = pair.read(&mut BytesMut::with_capacity(100));
    assert!(matches!(&end, Poll::Ready(Err(error)) if error.to_string().contains("not TLS")), "{end:?}");
    drop(pair.client);
    assert!(!lock(&pair.wire.0).to_server.is_empty(), "no alert");
}

/// Who hangs up without a word may be somebody else who cut the line.
#[test]
fn an_end_is_one_that_was_announced() {
    let mut pair = Pair::new(usize::MAX);
    pair.server.writer().write_all(b"bye").expect("room");
    pair.server.send_close_notify();
    pair.exchange();
    lock(&pair.wire.0).hung_up = true;
    let mut buf = BytesMut::with_capacity(100);
    assert!(matches!(pair.read(&mut buf), Poll::Ready(Ok(3))));
    assert!(matches!(pair.read(&mut buf), Poll::Ready(Ok(0))));

    let mut pair = Pair::new(usize::MAX);
    lock(&pair.wire.0).hung_up = true;
    let cut = pair.read(&mut buf);
    assert!(
        matches!(&cut, Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof),
        "{cut:?}"
    );
}

#[test]
fn dropping_it_announces_the_end() {
    let mut pair = Pair::new(usize::MAX);
    let wire = pair.wire.clone();
    drop(pair.client);
    let goodbye = std::mem::take(&mut lock(&wire.0).to_server);
    pair.server.read_tls(&mut goodbye.as_slice()).expect("room");
    let state = pair.server.process_new_packets().expect("TLS");
    assert!(state.peer_has_closed());
}
