//! The `nats-server` that `forecourt up` runs when no other is named.

use std::fs;

use ingest::server::NatsServer;

/// It ends in order, so that it need not read its whole store when it starts again; and a store that is larger than what is
/// free may go on growing.
#[tokio::test]
async fn a_server_of_our_own_ends_in_order_and_has_room_beyond_what_it_holds() {
    const HELD: u64 = 3 << 40;
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    fs::create_dir(&store).unwrap();
    // No disk is as large as this file says it is.
    fs::File::create(store.join("held")).unwrap().set_len(HELD).unwrap();
    let server = NatsServer::start(folder.path()).await.unwrap();
    server.stop().await;
    let config = fs::read_to_string(folder.path().join("nats-server.conf")).unwrap();
    let room = config.lines().find_map(|line| line.trim().strip_prefix("max_file_store: ")).unwrap();
    assert!(room.parse::<u64>().unwrap() > HELD, "{config}");
    let log = fs::read_to_string(folder.path().join("nats-server.log")).unwrap();
    assert!(log.contains("Server Exiting"), "{log}");
}
