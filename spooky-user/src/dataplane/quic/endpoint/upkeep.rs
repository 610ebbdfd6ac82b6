//! What an endpoint follows after each service of a connection: its IDs, where its client counts, how its handshake went. Imports
//! as its parent does.

use super::super::cid::Cid;
use super::super::sources::Source;
use super::Endpoint;
use crate::dataplane::abuse::Event;
use crate::dataplane::packet::udp::canonical_ip;
use crate::id::ConnectionKey;

impl<S> Endpoint<S> {
    /// Follows what the transport did: new spare IDs lead here, and the connection counts where its client's address is now.
    pub fn maintain(&mut self, key: ConnectionKey) {
        let Some(slot) = self.slots.get_mut(key.index as usize) else { return };
        let Some(connection) = slot.connection.as_deref_mut() else { return };
        let source = Source::of(connection.client().ip());
        if source != connection.source {
            let from = std::mem::replace(&mut connection.source, source);
            let mut places = self.listeners.iter_mut();
            if let Some(place) = places.find(|it| it.id == connection.listener) {
                place.counts.moved(from, source);
            }
        }
        connection.note_handshake_failure(&self.metrics);
        if connection.take_failure() {
            self.reports.report(canonical_ip(connection.client()), Event::Handshake);
        }
        if connection.half_open && connection.transport.is_established() {
            connection.half_open = false;
            connection.handshake_ended();
            let mut places = self.listeners.iter_mut();
            if let Some(place) = places.find(|it| it.id == connection.listener) {
                place.counts.not_half_open();
                self.metrics.connections_half_open.dec();
            }
        }
        if !connection.transport.is_established() || connection.transport.is_closed() {
            return;
        }
        let listener = connection.listener;
        let Some(place) = self.listeners.iter().find(|it| it.id == listener) else { return };
        let most = place.settings.active_connection_id_limit;
        connection.issue_spares(&place.issuer, most, &mut self.fresh);
        for cid in self.fresh.drain(..) {
            self.issued.insert(cid, key);
        }
    }

    /// IDs that the client has retired lead nowhere from that packet on: one that comes late under such an ID, by way of another
    /// worker perhaps, would be an error of the connection to quiche.
    pub(super) fn forget_retired(&mut self, key: ConnectionKey) {
        let Some(slot) = self.slots.get_mut(key.index as usize) else { return };
        let Some(connection) = slot.connection.as_deref_mut() else { return };
        while let Some(retired) = connection.transport.retired_scid_next() {
            if let Ok(cid) = Cid::try_from(retired.as_ref()) {
                self.issued.remove(&cid);
                connection.issued.retain(|issued| *issued != cid);
            }
        }
    }
}
