//! Who the client is: the peer of its connection, or whoever a trusted proxy in front says it is.

use std::net::SocketAddr;
use std::time::Instant;

use super::{Outcome, Session};
use crate::http::forwarded::{Hop, Style};
use crate::proxy::failure::Failure;
use crate::proxy_protocol::{self, Addresses, Header};

impl Session {
    /// Finds out who the client is, before its first byte is taken for anything else. False: the connection is over.
    pub(super) async fn identify(&mut self) -> bool {
        let config = &self.shared.service.config.identity;
        if config.forwarded.is_some() || config.send_proxy.is_some() {
            // Somebody will be told, maybe with every request.
            self.front = self.client.socket.local_addr().ok();
        }
        let proxies = &config.accept_proxy;
        if proxies.is_empty() || !proxies.contains(self.peer.ip()) {
            return true;
        }
        if !self.wait_for_bytes(self.shared.patience().request).await {
            return false;
        }
        self.started = Some(Instant::now());
        match self.read_proxy_header().await {
            Ok(Some(Addresses { source, destination })) => {
                (self.peer, self.front) = (source, Some(destination));
                self.shared.stats.roll.rename(self.present, source);
            }
            // The proxy's own connection, or one of which it knows as little as we do.
            Ok(None) => {}
            Err(failure) => {
                self.shared.distrust(self.peer, reason(failure));
                self.account_refusal(&Outcome {
                    status: None,
                    bytes: 0,
                    failure: Some(failure),
                    issued: None,
                });
                return false;
            }
        }
        if self.shared.denies(self.peer.ip()) {
            self.shared.stats.denied();
            self.reset_on_close();
            return false;
        }
        true
    }

    /// In the time that [`Self::wait_for_bytes`] has left.
    async fn read_proxy_header(&mut self) -> Result<Header, Failure> {
        loop {
            let parsed = proxy_protocol::parse(self.client.input.filled()).map_err(Failure::Unidentified)?;
            if let Some((header, used)) = parsed {
                self.client.input.consume(used);
                self.client.input.release();
                return Ok(header);
            }
            // A header is shorter than a buffer, so there is room.
            self.more_of_the_head().await?;
        }
    }

    /// What the client has connected to.
    pub(super) fn destination(&self) -> Option<SocketAddr> {
        self.front.or_else(|| self.client.socket.local_addr().ok())
    }

    /// What a connection to a server starts with, so that it knows the client; nothing without `--send-proxy`.
    pub(super) fn greeting(&self) -> Vec<u8> {
        let mut greeting = Vec::new();
        if let Some(version) = self.shared.service.config.identity.send_proxy {
            let destination = self.destination();
            let header = destination.map(|destination| Addresses { source: self.peer, destination });
            proxy_protocol::write(&mut greeting, version, header);
        }
        greeting
    }

    /// For the headers of a request.
    pub(super) fn hop(&self, style: Style) -> Hop {
        let port = self.destination().map_or(0, |address| address.port());
        Hop { style, client: self.peer.ip(), port }
    }
}

fn reason(failure: Failure) -> &'static str {
    match failure {
        Failure::Unidentified(fault) => fault.as_str(),
        Failure::SlowHead => "its PROXY header took too long",
        _ => "it ended in its PROXY header",
    }
}
