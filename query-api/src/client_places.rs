//! Places for connections, of which one client has a share and not the whole.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use ingest::bodies::share;

/// The address of a request's client; the proxy's, behind a proxy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClientAddress(pub(crate) IpAddr);

/// As many places as there are, and who has them.
pub(crate) struct ClientPlaces {
    most: usize,
    taken: Mutex<HashMap<IpAddr, usize>>,
}

/// A place, given back when it is dropped.
pub(crate) struct ClientPlace {
    places: Arc<ClientPlaces>,
    client: IpAddr,
}

impl ClientPlaces {
    pub(crate) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, taken: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many places there are.
    pub(crate) const fn max(&self) -> usize {
        self.most
    }

    /// A place for a client, unless all are taken or it has its share.
    pub(crate) fn take(self: &Arc<Self>, client: IpAddr) -> Option<ClientPlace> {
        let mut taken = self.lock();
        let (all, own) = (taken.values().sum::<usize>(), taken.get(&client).copied().unwrap_or_default());
        if all >= self.most || own >= share(self.most) {
            return None;
        }
        taken.insert(client, own + 1);
        Some(ClientPlace { places: Arc::clone(self), client })
    }
}

impl Drop for ClientPlace {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        if let Some(own) = taken.get_mut(&self.client) {
            *own -= 1;
            if *own == 0 {
                taken.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::ClientPlaces;

    #[test]
    fn a_client_has_its_share_and_leaves_the_rest() {
        let places = ClientPlaces::new(8);
        let [greedy, other] = [1, 2].map(|last| IpAddr::V4(Ipv4Addr::new(192, 0, 2, last)));
        let mut held: Vec<_> = (0..20).filter_map(|_| places.take(greedy)).collect();
        assert_eq!(held.len(), 6);
        let others: Vec<_> = (0..20).filter_map(|_| places.take(other)).collect();
        assert_eq!(others.len(), 2);
        held.pop();
        assert!(places.take(greedy).is_some());
        drop((held, others));
        assert!(places.lock().is_empty());
    }
}
