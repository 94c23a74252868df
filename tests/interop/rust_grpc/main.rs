//! A client of gRPC whose messages are bytes, so that no protoc is needed to build it.
//!
//!     rust_grpc last ADDRESS TOKEN SECONDS  keeps the four kinds of calls open so long, and prints how each ended

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use http::uri::PathAndQuery;
use tokio_stream::{Stream, StreamExt};
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder, Streaming};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

#[derive(Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        let length = buffer.remaining();
        Ok(Some(buffer.copy_to_bytes(length)))
    }
}

/// Calls of one kind each, on one connection.
#[derive(Clone)]
struct Caller {
    channel: Channel,
    token: String,
    whole: Duration,
}

impl Caller {
    /// Waits for the connection, because tonic's client must be ready before a call.
    async fn client(&self) -> Result<Grpc<Channel>, Status> {
        let mut client = Grpc::new(self.channel.clone());
        client
            .ready()
            .await
            .map_err(|error| Status::unavailable(error.to_string()))?;
        Ok(client)
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let value = format!("Bearer {}", self.token);
        request
            .metadata_mut()
            .insert("authorization", value.parse().expect("a token is ASCII"));
        request
    }

    fn text(&self) -> Bytes {
        Bytes::from(self.whole.as_secs().to_string())
    }

    /// Five messages in the whole time, and the end of the stream at its end.
    fn slowly(&self) -> impl Stream<Item = Bytes> + Send + 'static {
        let pause = self.whole / 5;
        tokio_stream::iter(0..=5)
            .then(move |number| async move {
                if number > 0 {
                    tokio::time::sleep(pause).await;
                }
                number
            })
            .take_while(|number| *number < 5)
            .map(|_| Bytes::from_static(b"1"))
    }

    async fn hold(self) -> Result<String, Status> {
        let mut request = self.request(self.text());
        request.set_timeout(2 * self.whole);
        let mut client = self.client().await?;
        let answer = client.unary(request, path("Hold"), Raw).await?;
        Ok(text_of(&answer.into_inner()))
    }

    async fn drip(self) -> Result<String, Status> {
        let request = self.request(self.text());
        let mut client = self.client().await?;
        let answers = client
            .server_streaming(request, path("Drip"), Raw)
            .await?
            .into_inner();
        count(answers).await
    }

    async fn sum(self) -> Result<String, Status> {
        let request = self.request(self.slowly());
        let mut client = self.client().await?;
        let answer = client.client_streaming(request, path("Sum"), Raw).await?;
        Ok(text_of(&answer.into_inner()))
    }

    async fn talk(self) -> Result<String, Status> {
        let request = self.request(self.slowly());
        let mut client = self.client().await?;
        let answers = client
            .streaming(request, path("Talk"), Raw)
            .await?
            .into_inner();
        count(answers).await
    }
}

fn path(method: &str) -> PathAndQuery {
    format!("/demo.Echo/{method}")
        .parse()
        .expect("a method's name is a path")
}

fn text_of(message: &Bytes) -> String {
    String::from_utf8_lossy(message).into_owned()
}

async fn count(mut answers: Streaming<Bytes>) -> Result<String, Status> {
    let mut got = 0;
    while answers.message().await?.is_some() {
        got += 1;
    }
    Ok(got.to_string())
}

fn print(name: &str, ended: Result<String, Status>) {
    match ended {
        Ok(answer) => println!("{name} {answer} OK"),
        Err(status) => println!("{name} {} {:?}", status.message(), status.code()),
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [command, address, token, seconds] = words.as_slice() else {
        return Err("usage: rust_grpc last ADDRESS TOKEN SECONDS".into());
    };
    if command != "last" {
        return Err(format!("unknown command {command}").into());
    }
    let endpoint =
        Endpoint::from_shared(format!("http://{address}"))?.origin("http://planner.mesh".parse()?);
    let caller = Caller {
        channel: endpoint.connect().await?,
        token: token.clone(),
        whole: Duration::from_secs(seconds.parse()?),
    };
    let (hold, drip, sum, talk) = tokio::join!(
        caller.clone().hold(),
        caller.clone().drip(),
        caller.clone().sum(),
        caller.clone().talk(),
    );
    print("hold", hold);
    print("drip", drip);
    print("sum", sum);
    print("talk", talk);
    Ok(())
}
