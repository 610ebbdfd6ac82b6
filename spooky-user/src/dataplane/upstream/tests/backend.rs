//! An HTTP/2 server that answers when told, counts what it sees, and misbehaves on command.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::Reason;
use h2::server::SendResponse;
use http::Response;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpListener;
use tokio::sync::{broadcast, watch};
use tokio::task::spawn_local;
use tokio_rustls::TlsAcceptor;

/// What the server does with each stream.
#[derive(Clone, Copy, Debug)]
pub(super) enum Answer {
    /// 200 and the number of the stream, once [`Backend::release`] was called.
    Body,
    /// RST_STREAM.
    Reset(Reason),
    /// 200, a part of the body, RST_STREAM.
    Cut(Reason),
}

/// What it does to its connections when told.
#[derive(Clone, Copy, Debug)]
pub(super) enum Command {
    /// GOAWAY NO_ERROR, streams go on.
    GoAway,
    /// GOAWAY with a reason, then the connection is closed.
    Abort(Reason),
    /// The socket is closed.
    Cut,
    /// Nothing is read or written any more, the socket stays.
    Freeze,
}

pub(super) struct Backend {
    pub(super) address: SocketAddr,
    /// Connections accepted.
    pub(super) accepted: Cell<usize>,
    /// Connections that ended.
    pub(super) ended: Cell<usize>,
    /// Streams accepted, open now, and at most open at a time on all connections.
    pub(super) streams: Cell<usize>,
    pub(super) active: Cell<usize>,
    pub(super) active_max: Cell<usize>,
    /// Octets read from all connections.
    pub(super) octets: Rc<Cell<usize>>,
    answer: Answer,
    limit: u32,
    tls: Option<TlsAcceptor>,
    released: watch::Sender<bool>,
    commands: broadcast::Sender<Command>,
}

impl Backend {
    /// Listens; allows `limit` streams a connection; holds answers until [`Backend::release`].
    pub(super) async fn held(limit: u32) -> Rc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::on(listener, limit, Answer::Body, None, false)
    }

    /// The same, answering at once.
    pub(super) async fn prompt(limit: u32) -> Rc<Self> {
        let backend = Self::held(limit).await;
        backend.release();
        backend
    }

    pub(super) async fn with(answer: Answer) -> Rc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::on(listener, 100, answer, None, true)
    }

    pub(super) async fn tls(acceptor: TlsAcceptor) -> Rc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::on(listener, 100, Answer::Body, Some(acceptor), true)
    }

    pub(super) fn on(
        listener: TcpListener,
        limit: u32,
        answer: Answer,
        tls: Option<TlsAcceptor>,
        released: bool,
    ) -> Rc<Self> {
        let backend = Rc::new(Self {
            address: listener.local_addr().unwrap(),
            accepted: Cell::new(0),
            ended: Cell::new(0),
            streams: Cell::new(0),
            active: Cell::new(0),
            active_max: Cell::new(0),
            octets: Rc::default(),
            answer,
            limit,
            tls,
            released: watch::Sender::new(released),
            commands: broadcast::Sender::new(16),
        });
        spawn_local(Rc::clone(&backend).listen(listener));
        backend
    }

    pub(super) fn release(&self) {
        self.released.send_replace(true);
    }

    pub(super) fn command(&self, command: Command) {
        assert!(self.commands.send(command).is_ok(), "there is a connection");
    }

    async fn listen(self: Rc<Self>, listener: TcpListener) {
        while let Ok((tcp, _)) = listener.accept().await {
            self.accepted.set(self.accepted.get() + 1);
            let backend = Rc::clone(&self);
            spawn_local(async move {
                match &backend.tls {
                    None => backend.serve(tcp).await,
                    Some(tls) => {
                        if let Ok(stream) = tls.accept(tcp).await {
                            backend.serve(stream).await;
                        }
                    }
                }
                backend.ended.set(backend.ended.get() + 1);
            });
        }
    }

    async fn serve(self: &Rc<Self>, io: impl AsyncRead + AsyncWrite + Unpin) {
        let mut commands = self.commands.subscribe();
        let io = Counted { io, octets: Rc::clone(&self.octets) };
        let handshake =
            h2::server::Builder::new().max_concurrent_streams(self.limit).handshake::<_, Bytes>(io);
        let Ok(mut connection) = handshake.await else { return };
        loop {
            tokio::select! {
                accepted = connection.accept() => {
                    let Some(Ok((request, respond))) = accepted else { return };
                    self.streams.set(self.streams.get() + 1);
                    self.active.set(self.active.get() + 1);
                    self.active_max.set(self.active_max.get().max(self.active.get()));
                    spawn_local(Rc::clone(self).answer(request.into_body(), respond));
                }
                command = commands.recv() => match command {
                    Ok(Command::GoAway) => connection.graceful_shutdown(),
                    Ok(Command::Abort(reason)) => connection.abrupt_shutdown(reason),
                    Ok(Command::Cut) | Err(_) => return,
                    Ok(Command::Freeze) => std::future::pending().await,
                },
            }
        }
    }

    async fn answer(self: Rc<Self>, body: h2::RecvStream, mut respond: SendResponse<Bytes>) {
        let number = self.streams.get();
        match self.answer {
            Answer::Reset(reason) => respond.send_reset(reason),
            Answer::Cut(reason) => {
                if let Ok(mut send) = respond.send_response(Response::new(()), false) {
                    let _ = send.send_data(Bytes::from_static(b"half"), false);
                    // The reset overtakes what is still queued, so the client must have seen the data first.
                    tokio::task::yield_now().await;
                    send.send_reset(reason);
                }
            }
            Answer::Body => {
                let mut released = self.released.subscribe();
                tokio::select! {
                    _ = released.wait_for(|released| *released) => {
                        if let Ok(mut send) = respond.send_response(Response::new(()), false) {
                            let _ = send.send_data(number.to_string().into(), true);
                        }
                    }
                    _ = std::future::poll_fn(|cx| respond.poll_reset(cx)) => {}
                }
            }
        }
        drop(body);
        self.active.set(self.active.get() - 1);
    }
}

/// Counts what is read.
struct Counted<T> {
    io: T,
    octets: Rc<Cell<usize>>,
}

impl<T: AsyncRead + Unpin> AsyncRead for Counted<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let result = Pin::new(&mut this.io).poll_read(cx, buf);
        this.octets.set(this.octets.get() + buf.filled().len() - before);
        result
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Counted<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}
