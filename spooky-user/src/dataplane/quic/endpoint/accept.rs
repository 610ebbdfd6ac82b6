//! New connections: which Initials become one, which are asked to prove their address first (Retry), and the answer to versions
//! we do not speak.

use std::net::IpAddr;

use spooky_common::early;
use spooky_common::invariant::{Form, Header, Kind};

use super::{Arrival, Disposition, Endpoint, Listener};
use crate::dataplane::packet::Datagram;
use crate::dataplane::packet::udp::canonical_ip;
use crate::dataplane::quic::connection::Connection;
use crate::dataplane::quic::retry::{self, Invalid, Original};
use crate::dataplane::quic::sources::Source;
use crate::dataplane::quic::version;
use crate::id::{ConnectionKey, ListenerId};
use crate::telemetry::reason::{DropReason, RefusedReason};

/// A client's first destination connection ID must be at least this long (RFC 9000 §7.2).
const ORIGINAL_DCID_LEN_MIN: u8 = 8;

/// How a refusal by the header alone is counted.
pub(super) fn refused_early(reason: early::Reason) -> DropReason {
    match reason {
        early::Reason::Malformed => DropReason::Malformed,
        early::Reason::TooShort => DropReason::TooShort,
        early::Reason::SourcePort => DropReason::SourcePort,
        early::Reason::NotInitial => DropReason::NotInitial,
    }
}

impl<S> Endpoint<S> {
    /// An ID that is not ours: perhaps a new connection.
    pub(super) fn unknown(
        &mut self,
        arrival: Arrival,
        header: &Header,
        mut datagram: Datagram<'_>,
        permits: impl Fn(IpAddr) -> bool,
        out: &mut [u8],
    ) -> Disposition {
        let kind = match header.form {
            Form::Short => {
                self.metrics.steer_unknown.inc();
                return self.drop(DropReason::UnknownConnection);
            }
            Form::Long { kind, .. } => kind,
        };
        if early::is_service(datagram.path.peer.port()) {
            return self.drop(DropReason::SourcePort);
        }
        match kind {
            Kind::Initial => {}
            Kind::OtherVersion => return self.negotiate(arrival.listener, &datagram, permits, out),
            Kind::ZeroRtt | Kind::Handshake => return self.drop(DropReason::NotInitial),
            Kind::Retry | Kind::VersionNegotiation => return self.drop(DropReason::Malformed),
        }
        self.metrics.initials.inc();
        if datagram.bytes.len() < version::TRIGGER_SIZE_MIN {
            return self.drop(DropReason::TooShort);
        }
        if !(ORIGINAL_DCID_LEN_MIN..=20).contains(&header.dcid_len) {
            return self.drop(DropReason::Malformed);
        }
        if let Err(reason) = self.may_open(arrival.listener, &datagram, &permits) {
            return self.refuse(reason);
        }
        let attacked = self.attacked;
        let asks = |it: &Listener| it.id == arrival.listener && it.wants_validation(attacked);
        if self.listeners.iter().any(asks) {
            return self.ask_back(arrival, datagram, out);
        }
        match self.accept(arrival, header, &datagram, None) {
            Ok(key) => self.begin(key, arrival, header, &mut datagram, permits, out),
            Err(reason) => self.refuse(reason),
        }
    }

    /// Gives a new connection its first datagram. One that cannot be read leaves nothing behind: the true one may be next
    /// to it (RFC 9000 §5.2.2).
    fn begin(
        &mut self,
        key: ConnectionKey,
        arrival: Arrival,
        header: &Header,
        datagram: &mut Datagram<'_>,
        permits: impl Fn(IpAddr) -> bool,
        out: &mut [u8],
    ) -> Disposition {
        let disposition = self.deliver(key, arrival.now, header, datagram, permits, out);
        let connection = self.get_mut(key);
        if matches!(disposition, Disposition::Delivered(_))
            && connection.is_some_and(|connection| connection.transport.is_closed())
        {
            self.remove(key);
            return Disposition::Dropped;
        }
        disposition
    }

    /// An Initial under an ID of ours that no connection has: that of a client that a Retry has asked to come back with it, or
    /// a straggler of a connection that is gone.
    pub(super) fn second_flight(
        &mut self,
        arrival: Arrival,
        header: &Header,
        mut datagram: Datagram<'_>,
        permits: impl Fn(IpAddr) -> bool,
        out: &mut [u8],
    ) -> Disposition {
        if datagram.bytes.len() < version::TRIGGER_SIZE_MIN {
            return self.drop(DropReason::TooShort);
        }
        let Ok(whole) = quiche::Header::from_slice(datagram.bytes, 20) else {
            return self.drop(DropReason::Malformed);
        };
        let token = whole.token.unwrap_or_default();
        if token.is_empty() {
            return self.drop(DropReason::UnknownConnection);
        }
        let Some(place) = self.listeners.iter().find(|it| it.id == arrival.listener) else {
            return self.drop(DropReason::UnknownConnection);
        };
        let now = place.wall_ms(arrival.now);
        //= https://www.rfc-editor.org/rfc/rfc9000#section-8.1.3
        //# When a server receives an Initial packet with an address validation
        //# token, it MUST attempt to validate the token, unless it has already
        //# completed address validation.
        let original = match place.tokens.read(&token, datagram.path.peer, &header.dcid, now) {
            Ok(original) => original,
            // The client takes no second Retry (RFC 9000 §17.2.5.2): it starts anew by itself.
            Err(Invalid::Foreign | Invalid::Forged | Invalid::Expired) => {
                return self.drop(DropReason::Token);
            }
        };
        if let Err(reason) = self.may_open(arrival.listener, &datagram, &permits) {
            return self.refuse(reason);
        }
        match self.accept(arrival, header, &datagram, Some(original)) {
            Ok(key) => {
                self.metrics.addresses_validated.inc();
                self.begin(key, arrival, header, &mut datagram, permits, out)
            }
            Err(reason) => self.refuse(reason),
        }
    }

    /// Whether this source may open a connection at all now.
    fn may_open(
        &self,
        listener: ListenerId,
        datagram: &Datagram<'_>,
        permits: &impl Fn(IpAddr) -> bool,
    ) -> Result<(), RefusedReason> {
        let peer = canonical_ip(datagram.path.peer);
        if !permits(peer) {
            return Err(RefusedReason::Denied);
        }
        let place =
            self.listeners.iter().find(|it| it.id == listener).ok_or(RefusedReason::Internal)?;
        if self.draining || place.draining {
            return Err(RefusedReason::Draining);
        }
        if self.scarce {
            return Err(RefusedReason::Memory);
        }
        if self.live >= self.connections_max {
            return Err(RefusedReason::All);
        }
        place.admit(Source::of(peer))
    }

    /// Answers with a Retry: nothing is kept until the client has shown that it can receive at its address.
    fn ask_back(
        &mut self,
        arrival: Arrival,
        datagram: Datagram<'_>,
        out: &mut [u8],
    ) -> Disposition {
        let Some(place) = self.listeners.iter().find(|it| it.id == arrival.listener) else {
            return self.drop(DropReason::Malformed);
        };
        let peer = datagram.path.peer;
        let now = place.wall_ms(arrival.now);
        let cid = place.issuer.issue();
        let mint = |original| place.tokens.mint(original, peer, (&cid, &place.issuer), now);
        match retry::write(datagram.bytes, &cid, mint, out) {
            Some(size) => {
                self.metrics.retries_sent.inc();
                Disposition::Reply(size)
            }
            None => self.drop(DropReason::Malformed),
        }
    }

    fn refuse(&self, reason: RefusedReason) -> Disposition {
        self.metrics.connections_refused.inc(reason);
        Disposition::Dropped
    }

    fn negotiate(
        &self,
        listener: ListenerId,
        datagram: &Datagram<'_>,
        permits: impl Fn(IpAddr) -> bool,
        out: &mut [u8],
    ) -> Disposition {
        if !permits(canonical_ip(datagram.path.peer)) {
            return self.drop(DropReason::Denied);
        }
        let mut random = [0];
        if let Some(issuer) = self.issuer(listener) {
            issuer.fill_random(&mut random);
        }
        match version::negotiate(datagram.bytes, random[0], out) {
            Some(size) => {
                self.metrics.version_negotiations.inc();
                Disposition::Reply(size)
            }
            None => self.drop(DropReason::TooShort),
        }
    }

    /// Makes the connection; `original` is the client's first ID, when a Retry has come between.
    fn accept(
        &mut self,
        arrival: Arrival,
        header: &Header,
        datagram: &Datagram<'_>,
        original: Option<Original>,
    ) -> Result<ConnectionKey, RefusedReason> {
        let Arrival { listener, now, .. } = arrival;
        let mut places = self.listeners.iter_mut();
        let place = places.find(|it| it.id == listener).ok_or(RefusedReason::Internal)?;
        let cid = place.issuer.issue();
        let token = u128::from_be_bytes(place.issuer.reset_token(&cid));
        place.config.set_stateless_reset_token(Some(token));
        let path = datagram.path;
        let scid = quiche::ConnectionId::from_ref(&cid);
        let transport = match &original {
            None => quiche::accept_with_buf_factory(
                &scid,
                None,
                path.local,
                path.peer,
                &mut place.config,
            ),
            Some(original) => {
                let cids = quiche::RetryConnectionIds {
                    original_destination_cid: &quiche::ConnectionId::from_ref(original.as_bytes()),
                    retry_source_cid: &quiche::ConnectionId::from_ref(&header.dcid),
                };
                quiche::accept_with_retry(&scid, cids, path.local, path.peer, &mut place.config)
            }
        };
        let transport = transport.map_err(|error| {
            tracing::warn!(%error, "a connection could not be made");
            RefusedReason::Internal
        })?;
        // Until the client has our ID, its packets carry the one it has now.
        let first = (header.dcid_len, header.dcid);
        let validated = original.is_some();
        let mut connection =
            Connection::new(transport, listener, cid, first, path, validated, now, &place.settings);
        connection.vetted = self.access_version;
        place.counts.added(connection.source);
        let key = self.insert(connection);
        self.issued.insert(cid, key);
        self.originals.insert(first, key);
        self.metrics.connections_accepted.inc();
        self.metrics.connections_active.inc();
        self.metrics.connections_half_open.inc();
        Ok(key)
    }
}
