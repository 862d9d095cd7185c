//! The four-letter words.

use znodefs::CreateMode;
use znodefs::wire::Request;

use super::client::create;
use super::*;

async fn ask(server: &TestServer, word: &str) -> String {
    let mut client = TestClient::open(server.server.address()).await;
    // As `echo word | nc` sends it.
    client.send_bytes(format!("{word}\n").as_bytes()).await;
    client.read_to_end().await
}

#[tokio::test(flavor = "multi_thread")]
async fn only_listed_words_are_answered() {
    let mut config = config();
    config.four_letter_words = FourLetterWords::Listed(vec!["srvr".into()]);
    let server = TestServer::start_with(config).await;
    assert!(ask(&server, "srvr").await.contains("Mode: standalone\n"));
    let refused = "ruok is not executed because it is not in the whitelist.\n";
    assert_eq!(ask(&server, "ruok").await, refused);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_short_words_answer_exactly() {
    let server = TestServer::start().await;
    assert_eq!(ask(&server, "ruok").await, "imok");
    assert_eq!(ask(&server, "isro").await, "rw");
    assert_eq!(ask(&server, "srst").await, "Server stats reset.\n");
    assert_eq!(ask(&server, "crst").await, "Connection stats reset.\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_state_is_told_as_monitoring_reads_it() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    client.call(&create("/e", "abc", CreateMode::Ephemeral)).await;
    client.call(&Request::GetData { path: "/e", watch: true }).await;

    let srvr = ask(&server, "srvr").await;
    let expected = [
        "Zookeeper version: 3.",
        "Latency min/avg/max: 0/",
        "Received: 2\n",
        "Connections: 2\n",
        "Outstanding: 0\n",
        "Zxid: 0x100000002\n",
        "Mode: standalone\n",
        "Node count: 6\n",
    ];
    for line in expected {
        assert!(srvr.contains(line), "no '{line}' in {srvr}");
    }
    let stat = ask(&server, "stat").await;
    assert!(stat.contains("\nClients:\n /127.0.0.1:"), "{stat}");
    assert!(stat.contains("[1](queued=0,recved=2,sent=3)\n"), "{stat}");

    let cons = ask(&server, "cons").await;
    let session = format!("sid={},lop=GETD,est=", client.session_id);
    assert!(cons.contains(&session) && cons.contains(",to=10000,lcxid=0x2,"), "{cons}");

    let mntr = ask(&server, "mntr").await;
    let expected = [
        "zk_server_state\tstandalone\n",
        "zk_znode_count\t6\n",
        "zk_watch_count\t1\n",
        "zk_ephemerals_count\t1\n",
        "zk_num_alive_connections\t2\n",
        "zk_outstanding_requests\t0\n",
    ];
    for line in expected {
        assert!(mntr.contains(line), "no '{line}' in {mntr}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_and_sessions_are_listed() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    client.call(&create("/e", "abc", CreateMode::Ephemeral)).await;
    client.call(&Request::GetData { path: "/e", watch: true }).await;
    let session = client.session_id;
    assert_eq!(ask(&server, "wchs").await, "1 connections watching 1 paths\nTotal watches:1\n");
    assert_eq!(ask(&server, "wchp").await, format!("/e\n\t{session}\n"));
    assert_eq!(ask(&server, "wchc").await, format!("{session}\n\t/e\n"));
    let dump = ask(&server, "dump").await;
    assert!(dump.starts_with("SessionTracker dump:\nSession Sets (1)/(1):\n"), "{dump}");
    assert!(dump.contains(&format!("Sessions with Ephemerals (1):\n{session}:\n\t/e\n")), "{dump}");
}

#[tokio::test(flavor = "multi_thread")]
async fn configuration_and_environment_are_keys_and_values() {
    let server = TestServer::start().await;
    let conf = ask(&server, "conf").await;
    let port = format!("clientPort={}\n", server.server.address().port());
    assert!(conf.starts_with(&port) && conf.contains("\ntickTime=2000\n"), "{conf}");
    let envi = ask(&server, "envi").await;
    assert!(envi.starts_with("Environment:\nzookeeper.version="), "{envi}");
    assert!(ask(&server, "dirs").await.starts_with("datadir_size: "));
}
