//! What a fresh connection starts with: a four-letter word, or a ConnectRequest.

use bytes::BytesMut;
use znodefs::wire::{ConnectRequest, Decoder, take_frame};

use super::connection_task::{ConnectionTask, Ending};
use crate::four_letter_word;

/// What a connection is there for.
pub(super) enum Handshake {
    /// A four-letter word came; this is the answer.
    Words(String),
    /// A client wants a session.
    Connect(ConnectRequest),
}

/// Reads the first bytes of a connection.
pub(super) async fn receive(task: &mut ConnectionTask) -> Result<Handshake, Ending> {
    let mut word_checked = false;
    loop {
        task.stream.readable().await?;
        match task.stream.try_read_buf(&mut task.input) {
            Ok(0) => return Err(Ending::ByClient),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error.into()),
        }
        if !word_checked && task.input.len() >= 4 {
            word_checked = true;
            if let Some(word) = word(&task.input) {
                let answer = four_letter_word::answer(word, &task.service, &task.connection).await;
                return Ok(Handshake::Words(answer));
            }
        }
        let limit = task.service.config.frame_length_max;
        if let Some(frame) = take_frame(&mut task.input, limit)? {
            let request = ConnectRequest::decode(&mut Decoder::new(&frame))?;
            return Ok(Handshake::Connect(request));
        }
    }
}

/// The known word that the input starts with. As a frame's length each is far beyond any limit.
fn word(input: &BytesMut) -> Option<&'static str> {
    let first = input.first_chunk::<4>()?;
    four_letter_word::WORDS.into_iter().find(|word| word.as_bytes() == first)
}
