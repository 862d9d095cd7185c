//! What a fresh connection starts with: a four-letter word, or a ConnectRequest.

use bytes::BytesMut;

use super::client_connection::Ending;
use super::connection_task::ConnectionTask;
use crate::four_letter_word;

/// What a connection is there for.
pub(super) enum Handshake {
    /// A four-letter word came; this is the answer.
    Words(String),
    /// A client wants a session; the core has its ConnectRequest.
    Connecting,
}

/// Reads the first bytes of a connection.
pub(super) async fn receive(task: &mut ConnectionTask) -> Result<Handshake, Ending> {
    let mut word_checked = false;
    loop {
        task.stream.readable().await?;
        match task.stream.try_read_buf(task.client.input()) {
            Ok(0) => return Err(Ending::ByClient),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error.into()),
        }
        if !word_checked && task.client.input.len() >= 4 {
            word_checked = true;
            if let Some(word) = word(&task.client.input) {
                let answer =
                    four_letter_word::answer(word, &task.client.service, &task.client.connection)
                        .await;
                return Ok(Handshake::Words(answer));
            }
        }
        if task.client.take_connect_request()? {
            return Ok(Handshake::Connecting);
        }
    }
}

/// The known word that the input starts with. As a frame's length each is far beyond any limit.
fn word(input: &BytesMut) -> Option<&'static str> {
    let first = input.first_chunk::<4>()?;
    four_letter_word::WORDS.into_iter().find(|word| word.as_bytes() == first)
}
