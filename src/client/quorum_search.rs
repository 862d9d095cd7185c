//! A client that reads from a server without a quorum looks for one that has it: the others are asked
//! `isro` from time to time, as every ZooKeeper client does.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The pause before the first round; it doubles up to the second.
const PAUSE_MIN: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// How long a server may take to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);

/// Resolves once one of the servers takes writes; its place in the list.
pub(super) async fn find(servers: Vec<(String, u16)>) -> usize {
    let mut pause = PAUSE_MIN;
    loop {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
        for (place, (host, port)) in servers.iter().enumerate() {
            let answer = tokio::time::timeout(ANSWER_LIMIT, takes_writes(host, *port)).await;
            if matches!(answer, Ok(Ok(true))) {
                return place;
            }
        }
    }
}

async fn takes_writes(host: &str, port: u16) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect((host, port)).await?;
    stream.write_all(b"isro").await?;
    let mut answer = Vec::new();
    stream.take(16).read_to_end(&mut answer).await?;
    Ok(answer == b"rw")
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn the_server_that_takes_writes_is_found_among_those_that_do_not() {
        let mut servers = Vec::new();
        for answer in
            ["ro", "null", "isro is not executed because it is not in the whitelist.\n", "rw"]
        {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            servers.push(("127.0.0.1".to_string(), listener.local_addr().unwrap().port()));
            tokio::spawn(async move {
                while let Ok((mut stream, _)) = listener.accept().await {
                    let mut word = [0; 4];
                    stream.read_exact(&mut word).await.unwrap();
                    assert_eq!(&word, b"isro");
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
            });
        }
        let found = tokio::time::timeout(Duration::from_secs(20), find(servers)).await;
        assert_eq!(found.unwrap(), 3);
    }
}
