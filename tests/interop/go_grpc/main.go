// Command go_grpc is a client and a server of gRPC whose messages are bytes.
//
//	go_grpc server              prints its port, and serves demo.Echo until its input ends
//	go_grpc client ADDRESS TOKEN  makes the four kinds of calls, and prints one line of each
//	go_grpc last ADDRESS TOKEN SECONDS  keeps the four kinds of calls open so long, with little traffic
//	go_grpc reflect ADDRESS TOKEN  asks for services and their methods by reflection, and for the server's health
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

	"github.com/jhump/protoreflect/grpcreflect"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/reflection"
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
	grpc_health_v1.RegisterHealthServer(server, health.NewServer())
	reflection.Register(server)
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	go func() {
		_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
		server.Stop()
	}()
	return server.Serve(listener)
}

func connect(address string, options ...grpc.CallOption) (*grpc.ClientConn, error) {
	return grpc.NewClient(
		"passthrough:///"+address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithAuthority("planner.mesh"),
		grpc.WithDefaultCallOptions(options...),
	)
}

func reflect(address, token string) error {
	connection, err := connect(address)
	if err != nil {
		return err
	}
	defer connection.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	shown := metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
	client := grpcreflect.NewClientAuto(shown, connection)
	defer client.Reset()
	services, err := client.ListServices()
	fmt.Printf("services %v %s\n", services, status.Code(err))
	service, err := client.ResolveService("grpc.health.v1.Health")
	if err != nil {
		fmt.Printf("methods %s\n", status.Code(err))
	} else {
		fmt.Printf("methods")
		for _, method := range service.GetMethods() {
			fmt.Printf(" %s", method.GetName())
		}
		fmt.Println()
	}
	healthy, err := grpc_health_v1.NewHealthClient(connection).Check(shown, &grpc_health_v1.HealthCheckRequest{})
	fmt.Printf("health %s %s\n", healthy.GetStatus(), status.Code(err))
	return nil
}

func call(address, token string) error {
	connection, err := connect(address, grpc.CallContentSubtype("raw"))
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

// last keeps one call of each kind open, and prints how each ended.
func last(address, token string, seconds int) error {
	connection, err := connect(address, grpc.CallContentSubtype("raw"))
	if err != nil {
		return err
	}
	defer connection.Close()
	whole := time.Duration(seconds) * time.Second
	shown := metadata.AppendToOutgoingContext(context.Background(), "authorization", "Bearer "+token)
	limited, cancel := context.WithTimeout(shown, 2*whole)
	defer cancel()
	text := []byte(strconv.Itoa(seconds))
	open := func(name string) grpc.ClientStream {
		found, _ := connection.NewStream(shown, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/demo.Echo/"+name)
		return found
	}
	calls := map[string]func() string{
		"hold": func() string {
			answer := []byte{}
			err := connection.Invoke(limited, "/demo.Echo/Hold", &text, &answer)
			return fmt.Sprintf("%s %v", answer, status.Code(err))
		},
		"drip": func() string {
			found, got, answer := open("Drip"), 0, []byte{}
			_ = found.SendMsg(&text)
			_ = found.CloseSend()
			for {
				if err := found.RecvMsg(&answer); err != nil {
					return fmt.Sprintf("%d %v", got, err)
				}
				got++
			}
		},
		"sum": func() string {
			found, answer := open("Sum"), []byte{}
			for range 5 {
				one := []byte("1")
				_ = found.SendMsg(&one)
				time.Sleep(whole / 5)
			}
			_ = found.CloseSend()
			err := found.RecvMsg(&answer)
			return fmt.Sprintf("%s %v", answer, err)
		},
		"talk": func() string {
			found, got, answer := open("Talk"), 0, []byte{}
			for range 5 {
				one := []byte("1")
				_ = found.SendMsg(&one)
				if err := found.RecvMsg(&answer); err != nil {
					return fmt.Sprintf("%d %v", got, err)
				}
				got++
				time.Sleep(whole / 5)
			}
			_ = found.CloseSend()
			return fmt.Sprintf("%d %v", got, found.RecvMsg(&answer))
		},
	}
	ended := make(chan string)
	for name, one := range calls {
		go func() { ended <- name + " " + one() }()
	}
	for range calls {
		fmt.Println(<-ended)
	}
	return nil
}

func main() {
	encoding.RegisterCodec(raw{})
	var err error
	switch os.Args[1] {
	case "server":
		err = serve()
	case "reflect":
		err = reflect(os.Args[2], os.Args[3])
	case "last":
		seconds, _ := strconv.Atoi(os.Args[4])
		err = last(os.Args[2], os.Args[3], seconds)
	default:
		err = call(os.Args[2], os.Args[3])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
