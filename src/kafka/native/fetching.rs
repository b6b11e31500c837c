//! One fetch on one broker, from the request to the answer.
//!
//! Owns: the connection for fetches while it is in use, room in the budget for the answer. Does not own: what is fetched
//! next, what the answer means.

use std::sync::Arc;
use std::time::Duration;

use crate::kafka::native::cluster::Cluster;
use crate::kafka::native::connection::{ANSWER_LIMIT, Connection};
use crate::kafka::native::messages::Request;
use crate::kafka::native::messages::fetch::{Fetch, FetchAnswer};
use crate::pipeline::budget::{Budget, Permit};
use crate::pipeline::source::SourceError;

/// An answer and what it takes to go on.
#[derive(Debug)]
pub struct Done {
    pub broker: i32,
    /// (partition, offset) that the broker was to fetch.
    pub asked: Vec<(i32, i64)>,
    /// `None` after a failure.
    pub connection: Option<Connection>,
    /// Version of the fetch; `None` where there was no connection.
    pub version: Option<i16>,
    pub result: Result<(FetchAnswer, Permit), SourceError>,
}

/// Fetches; opens a connection where there is none to use again.
pub async fn fetch(
    cluster: Arc<Cluster>,
    broker: i32,
    connection: Option<Connection>,
    request: Fetch,
    asked: Vec<(i32, i64)>,
    budget: Budget,
) -> Done {
    let connection = match connection {
        Some(connection) => Ok(connection),
        None => cluster.connect(broker).await,
    };
    let mut connection = match connection {
        Ok(connection) => connection,
        Err(error) => return Done { broker, asked, connection: None, version: None, result: Err(error) },
    };
    let version = connection.version(Fetch::API).ok();
    let result = exchange(&mut connection, &request, &budget).await;
    Done { broker, asked, connection: Some(connection).filter(Connection::is_usable), version, result }
}

async fn exchange(
    connection: &mut Connection,
    request: &Fetch,
    budget: &Budget,
) -> Result<(FetchAnswer, Permit), SourceError> {
    let name = Fetch::API.name;
    let version = connection.version(Fetch::API)?;
    connection.send(request, version).await?;
    let hold = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0));
    let length = connection.answer_length(name, hold + ANSWER_LIMIT).await?;
    // Nothing is held while the broker holds the answer; its bytes wait in the sockets until there is room.
    let permit = budget.reserve(length as u64).await;
    let frame = connection.answer_body(name, length).await?;
    Ok((connection.read_answer::<Fetch>(frame, version)?, permit))
}
