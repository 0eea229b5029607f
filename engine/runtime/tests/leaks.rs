//! A core that ended leaves nothing behind: no descriptor (its event loop's included), whatever was in flight.

use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use corelane_runtime::net::{ConnectOptions, ListenOptions, Listener, TcpStream};
use corelane_runtime::testing::{config, drivers, on_cores};
use corelane_runtime::{Core, Driver};

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("procfs").count()
}

/// Ends while reads, writes, accepts, polls and timers wait.
async fn busy(core: Rc<Core>) {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let listener = Listener::bind(&core, any, &ListenOptions::default()).expect("bind");
    for at in 0..6 {
        let options = ConnectOptions::default();
        let client = TcpStream::connect(&core, listener.local_addr(), &options).await.expect("connect");
        let server = listener.accept().await.expect("accept").into_stream(&core).expect("stream");
        let pending = core.clone();
        core.spawn(async move {
            match at % 3 {
                0 => drop(client.read(pending.buffers().take()).await),
                1 => drop(client.read_parking(&pending, Duration::from_millis(1)).await),
                _ => {
                    let mut block = pending.buffers().take_sized(16 << 20);
                    block.commit(16 << 20);
                    drop(client.write_all(block).await);
                }
            }
            drop(server);
        });
    }
    let waiting = core.clone();
    core.spawn(async move { drop((listener.accept().await, waiting)) });
    let sleeping = core.clone();
    core.spawn(async move { sleeping.timers().sleep(Duration::from_secs(3600)).await });
    core.timers().sleep(Duration::from_millis(5)).await;
}

fn ends_clean(driver: Driver) {
    // The first launch may open what the process then keeps.
    on_cores(vec![config(driver)], busy);
    let before = descriptors();
    for _ in 0..20 {
        on_cores(vec![config(driver); 2], busy);
    }
    assert_eq!(descriptors(), before, "on {driver:?}");
}

#[test]
fn no_descriptor_outlives_its_core() {
    drivers().into_iter().for_each(ends_clean);
}
