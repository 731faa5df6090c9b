use std::process::Command;
use std::time::{Duration, Instant};

use super::ports;
use super::redis::RedisServer;

/// Redis servers that share the 16384 slots.
#[derive(Debug)]
pub struct RedisCluster {
    nodes: Vec<RedisServer>,
}

impl RedisCluster {
    /// Starts three nodes without replicas and waits until each knows all slots.
    ///
    /// # Panics
    ///
    /// When they do not come together.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(0)
    }

    /// Starts three nodes, and `replicas` more for each.
    ///
    /// # Panics
    ///
    /// When they do not come together.
    #[must_use]
    pub fn start_with(replicas: usize) -> Self {
        let nodes: Vec<_> = (0..3 * (1 + replicas)).map(|_| Self::node()).collect();
        let cluster = Self { nodes };
        let mut args = vec!["create".to_owned()];
        args.extend(cluster.nodes.iter().map(|node| node.addr().to_string()));
        args.extend(["--cluster-replicas".to_owned(), replicas.to_string()]);
        args.push("--cluster-yes".to_owned());
        manage(&args);
        cluster.settle();
        cluster
    }

    /// The nodes.
    #[must_use]
    pub fn nodes(&self) -> &[RedisServer] {
        &self.nodes
    }

    /// The nodes, to stop and start them.
    pub fn nodes_mut(&mut self) -> &mut [RedisServer] {
        &mut self.nodes
    }

    /// `redis-cluster://127.0.0.1:P1,127.0.0.1:P2,...`.
    #[must_use]
    pub fn url(&self) -> String {
        let hosts: Vec<_> = self.nodes.iter().map(|n| n.addr().to_string()).collect();
        format!("redis-cluster://{}", hosts.join(","))
    }

    /// Moves so many slots, with all that is in them, from the first node to the second.
    ///
    /// # Panics
    ///
    /// When the nodes do not agree.
    pub fn reshard(&self, slots: usize) {
        let id = |node: &RedisServer| node.command(&["CLUSTER", "MYID"]).text();
        let (from, to) = (id(&self.nodes[0]), id(&self.nodes[1]));
        manage(&[
            "reshard".to_owned(),
            self.nodes[0].addr().to_string(),
            "--cluster-from".to_owned(),
            from,
            "--cluster-to".to_owned(),
            to,
            "--cluster-slots".to_owned(),
            slots.to_string(),
            "--cluster-yes".to_owned(),
        ]);
    }

    /// Waits until every node says that the cluster works.
    ///
    /// # Panics
    ///
    /// When that takes too long.
    pub fn settle(&self) {
        let start = Instant::now();
        let nodes = self.nodes.len();
        let replicas = nodes / 3 - 1;
        let well = |node: &RedisServer| {
            let info = node.command(&["CLUSTER", "INFO"]).text();
            let role = node.command(&["ROLE"]).text();
            // A primary lists its replicas, a replica says how it gets on.
            let synchronised = match role.split_once('\n') {
                Some(("master", _)) => {
                    let reply = node.command(&["INFO", "replication"]).text();
                    reply.matches("state=online").count() == replicas
                }
                _ => role.contains("connected"),
            };
            info.contains("cluster_state:ok")
                && info.contains(&format!("cluster_known_nodes:{nodes}\r"))
                && synchronised
        };
        while !self.nodes.iter().all(well) {
            assert!(
                start.elapsed() < Duration::from_secs(30),
                "the cluster does not come together"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn node() -> RedisServer {
        // By default the second port is the first plus 10000, where it could meet outgoing connections.
        let bus = ports::free().to_string();
        RedisServer::start_with(&[
            "--cluster-enabled",
            "yes",
            "--cluster-port",
            &bus,
            "--cluster-node-timeout",
            "2000",
            "--repl-diskless-sync-delay",
            "0",
        ])
    }
}

fn manage(args: &[String]) {
    let output = Command::new("redis-cli")
        .arg("--cluster")
        .args(args)
        .output()
        .expect("redis-cli is installed: apt-get install redis-tools");
    assert!(output.status.success(), "{output:?}");
}
