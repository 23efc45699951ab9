//! TLS over the socket of any runtime. rustls does no I/O of its own; this moves its bytes.
//!
//! ```text
//!              socket ──read──► input ──► session ──► plaintext ──► lane
//!              socket ◄─write── sealed ◄─ session ◄── plaintext ◄── lane
//! ```
//!
//! Nothing piles up on either way: the socket is read only when all that came before has been handed on, and the lane's
//! bytes are sealed only when the socket has taken all that was sealed before. The lane is told that bytes are written
//! when the socket has the whole record that holds them, so what it takes for not sent cannot have been understood.

mod config;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io::{self, BufRead, Write};
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, BytesMut};
use rustls::pki_types::ServerName;
use rustls::{AlertDescription, CertificateError, ClientConfig, ClientConnection, Error, InvalidMessage};

use super::trouble::DialTrouble;
use crate::runtime::Stream;

/// What is read from the socket at a time: a whole record, and somewhat more.
const READ_CHUNK: usize = 32 * 1024;

/// Reads of the socket in one poll that bring nothing for the lane, before other tasks get their turn.
const READS: usize = 32;

/// What the connections of a cache have in common: the roots that are trusted, who we are, the server's name.
#[derive(Clone)]
pub(crate) struct TlsClient {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    shows_certificate: bool,
}

impl TlsClient {
    pub(crate) fn wrap<S: Stream>(&self, stream: S) -> io::Result<TlsStream<S>> {
        let session = ClientConnection::new(Arc::clone(&self.config), self.name.clone())
            .map_err(|error| explain(&error, self.shows_certificate))?;
        Ok(TlsStream {
            stream,
            session,
            input: BytesMut::new(),
            sealed: Vec::new(),
            sent: 0,
            accepted: 0,
            shows_certificate: self.shows_certificate,
        })
    }
}

impl fmt::Debug for TlsClient {
    /// Without the configuration, which holds a key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsClient").field("name", &self.name).finish_non_exhaustive()
    }
}

/// One connection. Dropped, it tells the server that this is the end, if the socket takes that at once.
pub(crate) struct TlsStream<S: Stream> {
    stream: S,
    session: ClientConnection,
    /// Bytes of the socket that the session has not yet looked at.
    input: BytesMut,
    /// Bytes for the socket, and how many of them it has taken.
    sealed: Vec<u8>,
    sent: usize,
    /// The lane's bytes that are in `sealed`, not yet told to be written.
    accepted: usize,
    shows_certificate: bool,
}

impl<S: Stream> TlsStream<S> {
    pub(crate) fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_flush(cx))?;
            if !self.session.is_handshaking() {
                return Poll::Ready(Ok(()));
            }
            if !ready!(self.poll_more(cx))? {
                let problem = "the server hung up during the TLS handshake: does it speak TLS on this port?";
                let trouble = DialTrouble::outage(problem);
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, trouble)));
            }
        }
    }

    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut BytesMut) -> Poll<io::Result<usize>> {
        for _ in 0..READS {
            // What the session has comes first: nothing but this call would ever fetch it.
            if let Some(read) = self.take_plaintext(buf)? {
                return Poll::Ready(Ok(read));
            }
            // The server can ask the session itself for an answer, such as new keys. It is no reason not to read.
            if let Poll::Ready(Err(error)) = self.poll_flush(cx) {
                return Poll::Ready(Err(error));
            }
            ready!(self.poll_more(cx))?;
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.accepted == 0 {
            self.accepted = self.session.writer().write(bytes)?;
        }
        ready!(self.poll_flush(cx))?;
        Poll::Ready(Ok(std::mem::take(&mut self.accepted)))
    }

    /// Moves decrypted bytes to `buf`, as many as it has room for. 0 is the end of the stream, `None` that there are none
    /// yet.
    fn take_plaintext(&mut self, buf: &mut BytesMut) -> io::Result<Option<usize>> {
        let before = buf.len();
        loop {
            let room = buf.capacity() - buf.len();
            let mut reader = self.session.reader();
            let chunk = match reader.fill_buf() {
                Ok(chunk) => chunk,
                Err(_) if buf.len() > before => break,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error),
            };
            let taken = chunk.len().min(room);
            buf.extend_from_slice(chunk.get(..taken).unwrap_or_default());
            reader.consume(taken);
            if taken == 0 {
                break;
            }
        }
        Ok(Some(buf.len() - before))
    }

    /// Gives the session more of the server's bytes. `false` at the end of the stream.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        if self.input.is_empty() {
            self.input.reserve(READ_CHUNK);
            ready!(self.stream.poll_read(cx, &mut self.input))?;
        }
        // Takes some; an empty input tells it of the end.
        let taken = self.session.read_tls(&mut self.input.as_ref())?;
        self.input.advance(taken);
        if let Err(error) = self.session.process_new_packets() {
            return Poll::Ready(Err(explain(&error, self.shows_certificate)));
        }
        Poll::Ready(Ok(taken > 0))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.session.wants_write() {
            self.session.write_tls(&mut self.sealed)?;
        }
        while let Some(rest @ [_, ..]) = self.sealed.get(self.sent..) {
            match ready!(self.stream.poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                sent => self.sent += sent,
            }
        }
        self.sealed.clear();
        self.sent = 0;
        Poll::Ready(Ok(()))
    }
}

impl<S: Stream> Drop for TlsStream<S> {
    fn drop(&mut self) {
        self.session.send_close_notify();
        // What it was for is over, and nobody can wait here: an error or a full socket is all the same.
        let _ = self.poll_flush(&mut Context::from_waker(Waker::noop()));
    }
}

impl<S: Stream> fmt::Debug for TlsStream<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsStream").finish_non_exhaustive()
    }
}

/// An error of TLS in words that say what to do.
fn explain(error: &Error, shows_certificate: bool) -> io::Error {
    use CertificateError as Bad;

    let is_configuration = matches!(
        error,
        Error::InvalidCertificate(_) | Error::NoCertificatesPresented | Error::PeerIncompatible(_)
    ) || matches!(error, Error::AlertReceived(alert) if is_about_us(*alert));
    let cause = match error {
        Error::InvalidCertificate(Bad::UnknownIssuer | Bad::BadSignature) => {
            "the server's certificate was issued by nobody who is trusted here; give the certificate of its authority as \
             tls_ca_file"
                .to_owned()
        }
        Error::InvalidCertificate(Bad::NotValidForNameContext { expected, presented }) => {
            let (expected, presented) = (expected.to_str(), presented.join(" and "));
            format!(
                "the server's certificate is not for {expected} but for {presented}; connect to a name that it has, or give \
                 one as tls_server_name"
            )
        }
        Error::InvalidCertificate(Bad::Expired | Bad::ExpiredContext { .. }) => {
            "the server's certificate has expired; renew it, or set the clock of this machine".to_owned()
        }
        Error::InvalidCertificate(Bad::NotValidYet | Bad::NotValidYetContext { .. }) => {
            "the server's certificate is not valid yet; set the clock of this machine".to_owned()
        }
        Error::InvalidCertificate(bad) => format!("the server's certificate is not acceptable: {bad}"),
        Error::InvalidMessage(
            InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion,
        ) => "what the server answered is not TLS; use redis://, or the port on which it speaks TLS".to_owned(),
        Error::AlertReceived(alert) if is_about_us(*alert) => {
            let remedy = if shows_certificate {
                "the server refused the certificate in tls_client_certificate"
            } else {
                "the server wants a client certificate; give one as tls_client_certificate"
            };
            format!("{remedy} (it says {alert:?})")
        }
        Error::AlertReceived(AlertDescription::ProtocolVersion) => {
            "the server speaks neither TLS 1.3 nor 1.2".to_owned()
        }
        Error::AlertReceived(alert) => {
            format!(
                "the server ended the TLS handshake (it says {alert:?}); it may want a client certificate, or have no \
                 cipher in common with us"
            )
        }
        other => format!("TLS failed: {other}"),
    };
    io::Error::new(io::ErrorKind::InvalidData, DialTrouble { cause, is_configuration })
}

/// Whether an alert is about the client's certificate, or that there is none.
fn is_about_us(alert: AlertDescription) -> bool {
    use AlertDescription as Alert;

    matches!(
        alert,
        Alert::CertificateRequired
            | Alert::NoCertificate
            | Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::AccessDenied
    )
}
