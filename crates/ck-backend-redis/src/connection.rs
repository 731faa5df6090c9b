use std::sync::Arc;

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionInfo, Pipeline, ProtocolVersion, PushInfo,
    RedisError, RedisFuture, Value,
};

use crate::address::Address;
#[cfg(feature = "cluster")]
use crate::engine::Task;
use crate::error::Fault;
use crate::watch::Tracker;

/// A connection to one server, or connections to all nodes of a cluster. Clones share it; what is asked
/// first is answered first.
///
/// It has no deadlines of its own: every operation has one for all that it does.
#[derive(Clone)]
pub(crate) enum Connection {
    Single {
        connection: MultiplexedConnection,
        client: Box<Client>,
    },
    #[cfg(feature = "cluster")]
    Cluster {
        connection: redis::cluster_async::ClusterConnection,
        /// How one of the nodes is reached, and all others but for their addresses.
        node: Box<ConnectionInfo>,
    },
}

impl Connection {
    pub(crate) async fn open(address: &Address) -> Result<Self, Fault> {
        let mut connection = match address {
            #[cfg(feature = "cluster")]
            Address::Cluster { client, node } => Self::Cluster {
                connection: client.get_async_connection().await?,
                node: node.clone(),
            },
            _ => {
                let client = server_of(address).await?;
                Self::to_server(client, AsyncConnectionConfig::new()).await?
            }
        };
        // The client asks nothing when the URL has no password, and takes a refused `MULTI` badly: in
        // builds that check arithmetic the connection's task ends (redis 1.8).
        match connection.query(&redis::cmd("PING")).await {
            Err(fault) if fault.is_authentication() || fault.is_lost_connection() => Err(fault),
            // Whatever else there is to say is said to the command that matters.
            _ => Ok(connection),
        }
    }

    /// Opens a connection to the one server, over which that tells of changes.
    pub(crate) async fn open_tracking(
        address: &Address,
        tracker: Arc<Tracker>,
    ) -> Result<Self, Fault> {
        let client = server_of(address).await?;
        let info = client.get_connection_info().clone();
        let settings = info.redis_settings().clone();
        let settings = settings.set_protocol(ProtocolVersion::RESP3);
        let number = tracker.connect();
        let hearing = Arc::clone(&tracker);
        let config = AsyncConnectionConfig::new().set_push_sender(move |push: PushInfo| {
            hearing.hear(number, &push);
            Ok::<_, std::convert::Infallible>(())
        });
        let client = Client::open(info.set_redis_settings(settings))?;
        let mut connection = Self::to_server(client, config).await?;
        match connection.query(&tracker.command()).await {
            Ok(_ok) => tracker.connected(number),
            Err(fault) if fault.is_lost_connection() => return Err(fault),
            Err(fault) => tracing::warn!(%fault, "the server does not tell of changes"),
        }
        Ok(connection)
    }

    async fn to_server(client: Client, config: AsyncConnectionConfig) -> Result<Self, Fault> {
        let config = config
            .set_connection_timeout(None)
            .set_response_timeout(None);
        let open = client.get_multiplexed_async_connection_with_config(&config);
        let connection = open.await?;
        let client = Box::new(client);
        Ok(Self::Single { connection, client })
    }

    /// How the server of this key is reached.
    pub(crate) async fn server_of(&mut self, name: &str) -> Result<ConnectionInfo, Fault> {
        #[cfg(not(feature = "cluster"))]
        let _ = name;
        match self {
            Self::Single { client, .. } => Ok(client.get_connection_info().clone()),
            #[cfg(feature = "cluster")]
            Self::Cluster { node, .. } => {
                let node = ConnectionInfo::clone(node);
                let slots = self.query(redis::cmd("CLUSTER").arg("SLOTS")).await?;
                crate::slots::node_of(name, node, slots)
            }
        }
    }

    /// Whether commands are sent again by themselves when a node does not answer, perhaps to another one.
    fn repeats(&self) -> bool {
        match self {
            Self::Single { .. } => false,
            #[cfg(feature = "cluster")]
            Self::Cluster { .. } => true,
        }
    }

    pub(crate) async fn query(&mut self, command: &Cmd) -> Result<Value, Fault> {
        let answer = command.query_async(self).await;
        answer.map_err(|error| self.fault(error))
    }

    pub(crate) fn fault(&self, error: RedisError) -> Fault {
        let fault = Fault::from(error);
        if self.repeats() && fault.is_redirected() {
            return Fault::Moving;
        }
        fault
    }

    /// The answers to commands about any keys, in no common moment.
    pub(crate) async fn query_each(&mut self, commands: Vec<Cmd>) -> Result<Vec<Value>, Fault> {
        /// Questions to the nodes of a cluster at a time.
        #[cfg(feature = "cluster")]
        const IN_FLIGHT: usize = 32;

        if commands.is_empty() {
            return Ok(Vec::new());
        }
        #[cfg(feature = "cluster")]
        if let Self::Cluster { .. } = self {
            let mut answers = Vec::with_capacity(commands.len());
            let mut asked = std::collections::VecDeque::new();
            for command in commands {
                let mut connection = self.clone();
                asked.push_back(Task::spawn(async move { connection.query(&command).await }));
                if asked.len() == IN_FLIGHT
                    && let Some(first) = asked.pop_front()
                {
                    answers.push(first.join().await??);
                }
            }
            for question in asked {
                answers.push(question.join().await??);
            }
            return Ok(answers);
        }
        let mut pipeline = redis::pipe();
        for command in commands {
            pipeline.add_command(command);
        }
        self.query_all(&pipeline).await
    }

    /// The answers of a transaction or a pipeline, one for each command.
    pub(crate) async fn query_all(&mut self, commands: &Pipeline) -> Result<Vec<Value>, Fault> {
        let answers = commands.query_async(self).await;
        match answers.map_err(|error| self.fault(error))? {
            Value::Array(values) => Ok(values),
            _ => Err(Fault::Reply {
                wanted: "the answers of a transaction",
            }),
        }
    }
}

/// The one server of this address, as things are now.
async fn server_of(address: &Address) -> Result<Client, Fault> {
    match address {
        Address::Single(client) => Ok(Client::clone(client)),
        #[cfg(feature = "sentinel")]
        Address::Sentinel(sentinels) => {
            // Boxed: the client library's futures are deep.
            let primary: ck_core::BoxFuture<'_, _> = Box::pin(sentinels.primary());
            primary.await
        }
        #[cfg(feature = "cluster")]
        Address::Cluster { .. } => Err(Fault::CannotWatch),
    }
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::Single { connection, .. } => connection.req_packed_command(cmd),
            #[cfg(feature = "cluster")]
            Self::Cluster { connection, .. } => connection.req_packed_command(cmd),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::Single { connection, .. } => {
                connection.req_packed_commands(pipeline, offset, count)
            }
            #[cfg(feature = "cluster")]
            Self::Cluster { connection, .. } => {
                connection.req_packed_commands(pipeline, offset, count)
            }
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::Single { connection, .. } => connection.get_db(),
            #[cfg(feature = "cluster")]
            Self::Cluster { connection, .. } => connection.get_db(),
        }
    }
}

/// A number.
pub(crate) fn int(value: &Value) -> Result<i64, Fault> {
    match value {
        Value::Int(number) => Ok(*number),
        _ => Err(Fault::Reply { wanted: "a number" }),
    }
}

/// A length.
pub(crate) fn length(value: &Value) -> Result<u64, Fault> {
    u64::try_from(int(value)?).map_err(|_| Fault::Reply { wanted: "a length" })
}

/// Bytes; none where there is nothing.
pub(crate) fn bytes(value: Value) -> Result<Vec<u8>, Fault> {
    match value {
        Value::BulkString(bytes) => Ok(bytes),
        Value::Nil => Ok(Vec::new()),
        _ => Err(Fault::Reply { wanted: "bytes" }),
    }
}
