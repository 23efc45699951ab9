//! A proxy between the cache and its server that does to their bytes what networks do.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// What becomes of the bytes on every connection, until it is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Pass,
    /// One piece in ten ends at a random byte, and both sides find the connection closed.
    Cut,
    /// Each piece takes up to so many milliseconds more.
    Delay(u64),
    /// One byte at a time.
    Trickle,
    /// Nothing goes on in one direction; what was sent arrives when the mode is changed.
    StallToServer,
    StallToClient,
    /// One reply in ten is broken off, and what follows is no RESP.
    Garbage,
}

#[derive(Debug)]
pub(crate) struct Proxy {
    port: u16,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    /// The port of the server that new connections are made to.
    target: AtomicU16,
    mode: Mutex<Mode>,
    open: Mutex<Vec<TcpStream>>,
    ended: AtomicBool,
    random: Mutex<fastrand::Rng>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    ToServer,
    ToClient,
}

impl Proxy {
    pub(crate) fn start(target: u16, seed: u64) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let state = Arc::new(State {
            target: target.into(),
            mode: Mutex::new(Mode::Pass),
            open: Mutex::default(),
            ended: AtomicBool::new(false),
            random: Mutex::new(fastrand::Rng::with_seed(seed)),
        });
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for client in listener.incoming() {
                if shared.ended.load(Ordering::SeqCst) {
                    return;
                }
                shared.serve(&client.expect("a connection"));
            }
        });
        Self { port, state }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(crate) fn set(&self, mode: Mode) {
        *self.state.mode.lock().expect("no panic") = mode;
    }

    /// Sends new connections to another server; those that there are stay.
    pub(crate) fn lead_to(&self, port: u16) {
        self.state.target.store(port, Ordering::SeqCst);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.state.ended.store(true, Ordering::SeqCst);
        self.set(Mode::Pass);
        self.state.end_all();
        // Nothing else ends the wait for the next connection.
        drop(TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)));
    }
}

impl State {
    fn serve(self: &Arc<Self>, client: &TcpStream) {
        let target = (Ipv4Addr::LOCALHOST, self.target.load(Ordering::SeqCst));
        let Ok(server) = TcpStream::connect(target) else { return };
        for stream in [client, &server] {
            stream.set_nodelay(true).expect("a socket");
            self.open.lock().expect("no panic").push(stream.try_clone().expect("another handle"));
        }
        for (from, to, direction) in
            [(client, &server, Direction::ToServer), (&server, client, Direction::ToClient)]
        {
            let (from, to) = (from.try_clone().expect("a handle"), to.try_clone().expect("a handle"));
            let state = Arc::clone(self);
            thread::spawn(move || {
                state.pump(&from, &to, direction);
                for stream in [from, to] {
                    let _ = stream.shutdown(Shutdown::Both);
                }
            });
        }
    }

    /// Until either side has had enough.
    fn pump(&self, mut from: &TcpStream, mut to: &TcpStream, direction: Direction) {
        let mut piece = [0; 4096];
        while let Ok(n @ 1..) = from.read(&mut piece) {
            self.wait_while_stalled(direction);
            let piece = &piece[..n];
            let sent = match self.mode() {
                Mode::Cut if self.one_in_ten() => {
                    let _ = to.write_all(&piece[..self.random(n)]);
                    return;
                }
                Mode::Garbage if direction == Direction::ToClient && self.one_in_ten() => {
                    // Without an end of a line nothing of it can pass for the rest of a value.
                    let _ = to.write_all(&piece[..self.random(n)]);
                    let garbage: Vec<u8> =
                        (0..self.random(9_000)).map(|_| b" +$*:_#,x\0\xff"[self.random(11)]).collect();
                    let _ = to.write_all(&garbage);
                    // It is the client's to hang up.
                    while let Ok(1..) = from.read(&mut [0; 4096]) {}
                    return;
                }
                Mode::Delay(most) => {
                    thread::sleep(Duration::from_millis(self.random(most as usize + 1) as u64));
                    to.write_all(piece)
                }
                Mode::Trickle => piece.iter().try_for_each(|byte| to.write_all(&[*byte])),
                _ => to.write_all(piece),
            };
            if sent.is_err() {
                return;
            }
        }
    }

    fn wait_while_stalled(&self, direction: Direction) {
        let stalled = match direction {
            Direction::ToServer => Mode::StallToServer,
            Direction::ToClient => Mode::StallToClient,
        };
        while self.mode() == stalled {
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn mode(&self) -> Mode {
        *self.mode.lock().expect("no panic")
    }

    fn one_in_ten(&self) -> bool {
        self.random(10) == 0
    }

    fn random(&self, below: usize) -> usize {
        self.random.lock().expect("no panic").usize(..below)
    }

    fn end_all(&self) {
        for stream in self.open.lock().expect("no panic").drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}
