// Command go_grpc is a client and a server of gRPC whose messages are bytes.
//
//	go_grpc server              prints its port, and serves demo.Echo until its input ends
//	go_grpc client ADDRESS TOKEN  makes the four kinds of calls, and prints one line of each
package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

type raw struct{}

func (raw) Marshal(v any) ([]byte, error) { return *v.(*[]byte), nil }
func (raw) Unmarshal(data []byte, v any) error {
	*v.(*[]byte) = append([]byte(nil), data...)
	return nil
}
func (raw) Name() string { return "raw" }

func unary(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
	var request []byte
	if err := decode(&request); err != nil {
		return nil, err
	}
	if string(request) == "fail" {
		return nil, status.Error(codes.DataLoss, "gone")
	}
	fields, _ := metadata.FromIncomingContext(ctx)
	answer := append([]byte(fields.Get("delegation-subject")[0]+" "), request...)
	return &answer, nil
}

func many(_ any, stream grpc.ServerStream) error {
	var request []byte
	if err := stream.RecvMsg(&request); err != nil {
		return err
	}
	count, _ := strconv.Atoi(string(request))
	for number := range count {
		answer := []byte(strconv.Itoa(number))
		if err := stream.SendMsg(&answer); err != nil {
			return err
		}
	}
	return nil
}

func sum(_ any, stream grpc.ServerStream) error {
	total := 0
	for {
		var request []byte
		if err := stream.RecvMsg(&request); err == io.EOF {
			answer := []byte(strconv.Itoa(total))
			return stream.SendMsg(&answer)
		} else if err != nil {
			return err
		}
		number, _ := strconv.Atoi(string(request))
		total += number
	}
}

func talk(_ any, stream grpc.ServerStream) error {
	for {
		var request []byte
		if err := stream.RecvMsg(&request); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		answer := append([]byte("re: "), request...)
		if err := stream.SendMsg(&answer); err != nil {
			return err
		}
	}
}

var echo = grpc.ServiceDesc{
	ServiceName: "demo.Echo",
	HandlerType: (*any)(nil),
	Methods:     []grpc.MethodDesc{{MethodName: "Unary", Handler: unary}},
	Streams: []grpc.StreamDesc{
		{StreamName: "Many", Handler: many, ServerStreams: true},
		{StreamName: "Sum", Handler: sum, ClientStreams: true},
		{StreamName: "Talk", Handler: talk, ServerStreams: true, ClientStreams: true},
	},
}

func serve() error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	server.RegisterService(&echo, struct{}{})
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	go func() {
		_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
		server.Stop()
	}()
	return server.Serve(listener)
}

func call(address, token string) error {
	connection, err := grpc.NewClient(
		"passthrough:///"+address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithAuthority("planner.mesh"),
		grpc.WithDefaultCallOptions(grpc.CallContentSubtype("raw")),
	)
	if err != nil {
		return err
	}
	defer connection.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	shown := metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
	one := func(ctx context.Context, message string) {
		request, answer := []byte(message), []byte{}
		err := connection.Invoke(ctx, "/demo.Echo/Unary", &request, &answer)
		fmt.Printf("unary %s %s %s\n", answer, status.Code(err), status.Convert(err).Message())
	}
	one(shown, "hello")
	one(shown, "fail")
	one(ctx, "hello")

	stream := func(name string) (grpc.ClientStream, error) {
		return connection.NewStream(shown, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/demo.Echo/"+name)
	}
	found, err := stream("Many")
	if err != nil {
		return err
	}
	request, got := []byte("1000"), 0
	if err := found.SendMsg(&request); err != nil {
		return err
	}
	_ = found.CloseSend()
	for {
		var answer []byte
		if err := found.RecvMsg(&answer); err != nil {
			fmt.Printf("many %d %v\n", got, err)
			break
		}
		got++
	}
	found, err = stream("Sum")
	if err != nil {
		return err
	}
	for number := range 1000 {
		request := []byte(strconv.Itoa(number))
		if err := found.SendMsg(&request); err != nil {
			return err
		}
	}
	_ = found.CloseSend()
	var answer []byte
	err = found.RecvMsg(&answer)
	fmt.Printf("sum %s %v\n", answer, err)
	found, err = stream("Talk")
	if err != nil {
		return err
	}
	for number := range 20 {
		request := []byte(strconv.Itoa(number))
		if err := found.SendMsg(&request); err != nil {
			return err
		}
		if err := found.RecvMsg(&answer); err != nil {
			return err
		}
	}
	_ = found.CloseSend()
	fmt.Printf("talk %s %v\n", answer, found.RecvMsg(&answer))
	return nil
}

func main() {
	encoding.RegisterCodec(raw{})
	var err error
	if os.Args[1] == "server" {
		err = serve()
	} else {
		err = call(os.Args[2], os.Args[3])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
