// Command go_a2a is an agent and a client of A2A by gRPC on the official SDK in Go.
//
//	go_a2a server VERSION PORT GRPC_PORT  serves its card and its service until it is ended
//	go_a2a client BASE [task:ID]          runs each operation, and prints what it got as one line of JSON (HANDLE=…)
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/a2aproject/a2a-go/v2/a2a"
	"github.com/a2aproject/a2a-go/v2/a2aclient"
	"github.com/a2aproject/a2a-go/v2/a2aclient/agentcard"
	"github.com/a2aproject/a2a-go/v2/a2acompat/a2av0"
	v0 "github.com/a2aproject/a2a-go/v2/a2agrpc/v0"
	v1 "github.com/a2aproject/a2a-go/v2/a2agrpc/v1"
	"github.com/a2aproject/a2a-go/v2/a2asrv"
	"github.com/a2aproject/a2a-go/v2/a2asrv/push"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

const (
	listed   = "https://hooks.acme.example/a2a/1"
	unlisted = "https://evil.example/"
)

// writer works on every message in a task of its own.
type writer struct{}

func (writer) Execute(_ context.Context, at *a2asrv.ExecutorContext) iter.Seq2[a2a.Event, error] {
	return func(yield func(a2a.Event, error) bool) {
		for _, event := range []a2a.Event{
			a2a.NewSubmittedTask(at, at.Message),
			a2a.NewStatusUpdateEvent(at, a2a.TaskStateWorking, nil),
			a2a.NewArtifactEvent(at, a2a.NewTextPart("a draft")),
			a2a.NewStatusUpdateEvent(at, a2a.TaskStateCompleted, nil),
		} {
			if !yield(event, nil) {
				return
			}
		}
	}
}

func (writer) Cancel(context.Context, *a2asrv.ExecutorContext) iter.Seq2[a2a.Event, error] {
	return func(yield func(a2a.Event, error) bool) { yield(nil, a2a.ErrTaskNotCancelable) }
}

// noSender sends no notification: the URLs are invented.
type noSender struct{}

func (noSender) SendPush(context.Context, *a2a.PushConfig, a2a.Event) error { return nil }

func cardOf(name, version, port, grpcPort string) *a2a.AgentCard {
	here := "http://127.0.0.1:" + port
	at := func(url string, binding a2a.TransportProtocol) *a2a.AgentInterface {
		return &a2a.AgentInterface{URL: url, ProtocolBinding: binding, ProtocolVersion: a2a.ProtocolVersion(version)}
	}
	return &a2a.AgentCard{
		Name:        name,
		Description: "Writes drafts",
		Version:     "1",
		SupportedInterfaces: []*a2a.AgentInterface{
			at(here+"/", a2a.TransportProtocolJSONRPC),
			at(here, a2a.TransportProtocolHTTPJSON),
			at("127.0.0.1:"+grpcPort, a2a.TransportProtocolGRPC),
		},
		Capabilities:       a2a.AgentCapabilities{Streaming: true, PushNotifications: true, ExtendedAgentCard: true},
		DefaultInputModes:  []string{"text"},
		DefaultOutputModes: []string{"text"},
		Skills:             []a2a.AgentSkill{{ID: "draft", Name: "Draft", Description: "Writes a draft", Tags: []string{"text"}}},
		SecuritySchemes:    a2a.NamedSecuritySchemes{"login": a2a.HTTPAuthSecurityScheme{Scheme: "Bearer"}},
		SecurityRequirements: a2a.SecurityRequirementsOptions{
			{"login": a2a.SecuritySchemeScopes{}},
		},
	}
}

func serve(version, port, grpcPort string) error {
	handler := a2asrv.NewHandler(
		writer{},
		a2asrv.WithPushNotifications(push.NewInMemoryStore(), noSender{}),
		a2asrv.WithExtendedAgentCard(cardOf("extended writer", version, port, grpcPort)),
	)
	card := a2asrv.NewStaticAgentCardHandler(cardOf("writer", version, port, grpcPort))
	server := grpc.NewServer()
	if version == "0.3" {
		card = a2asrv.NewAgentCardHandler(a2av0.NewStaticAgentCardProducer(cardOf("writer", version, port, grpcPort)))
		v0.NewHandler(handler).RegisterWith(server)
	} else {
		v1.NewHandler(handler).RegisterWith(server)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:"+grpcPort)
	if err != nil {
		return err
	}
	go func() { _ = server.Serve(listener) }()
	mux := http.NewServeMux()
	mux.Handle(a2asrv.WellKnownAgentCardPath, card)
	return http.ListenAndServe("127.0.0.1:"+port, mux)
}

// kind is the name of an error in all SDKs, and its text if it has none.
func kind(err error) string {
	for name, one := range map[string]error{
		"TaskNotFoundError":         a2a.ErrTaskNotFound,
		"TaskNotCancelableError":    a2a.ErrTaskNotCancelable,
		"UnsupportedOperationError": a2a.ErrUnsupportedOperation,
		"UnauthorizedError":         a2a.ErrUnauthorized,
		"InternalError":             a2a.ErrInternalError,
	} {
		if errors.Is(err, one) {
			return name
		}
	}
	if err == nil {
		return "done"
	}
	return err.Error()
}

// shown is what the error of a call tells its reader: kind, text, and our reason in its details.
func shown(err error) []any {
	var found *a2a.Error
	if !errors.As(err, &found) {
		return []any{kind(err)}
	}
	return []any{kind(err), found.Message, found.Details["reason"]}
}

func message(task string) *a2a.SendMessageRequest {
	made := a2a.NewMessage(a2a.MessageRoleUser, a2a.NewTextPart("write"))
	made.TaskID = a2a.TaskID(task)
	return &a2a.SendMessageRequest{Message: made}
}

func payload(event a2a.Event) string {
	switch event.(type) {
	case *a2a.Task:
		return "task"
	case *a2a.Message:
		return "message"
	case *a2a.TaskStatusUpdateEvent:
		return "status_update"
	}
	return "artifact_update"
}

func urls(card *a2a.AgentCard) []string {
	found := []string{}
	for _, one := range card.SupportedInterfaces {
		found = append(found, one.URL)
	}
	slices.Sort(found)
	return slices.Compact(found)
}

func call(base string, more []string) (map[string]any, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	card, err := (&agentcard.Resolver{CardParser: a2av0.NewAgentCardParser()}).Resolve(ctx, base)
	if err != nil {
		return nil, err
	}
	plain := grpc.WithTransportCredentials(insecure.NewCredentials())
	client, err := a2aclient.NewFromCard(
		ctx, card, a2aclient.WithDefaultsDisabled(), v1.WithGRPCTransport(plain), v0.WithGRPCTransport(plain),
	)
	if err != nil {
		return nil, err
	}
	if handle := os.Getenv("HANDLE"); handle != "" {
		ctx = a2aclient.AttachServiceParams(ctx, a2aclient.ServiceParams{"delegation-handle": {handle}})
	}
	said := map[string]any{"name": card.Name, "urls": urls(card)}
	if len(more) > 0 {
		task := strings.TrimPrefix(more[0], "task:")
		_, err := client.GetTask(ctx, &a2a.GetTaskRequest{ID: a2a.TaskID(task)})
		said["get"] = kind(err)
		_, err = client.CancelTask(ctx, &a2a.CancelTaskRequest{ID: a2a.TaskID(task)})
		said["cancel"] = kind(err)
		_, err = client.SendMessage(ctx, message(task))
		said["send"] = kind(err)
		for _, err = range client.SubscribeToTask(ctx, &a2a.SubscribeToTaskRequest{ID: a2a.TaskID(task)}) {
			break
		}
		said["subscribe"] = shown(err)
		return said, nil
	}
	result, err := client.SendMessage(ctx, message(""))
	if err != nil {
		return nil, err
	}
	made := result.(*a2a.Task)
	said["sent"], said["state"], said["task"] = []string{payload(made)}, made.Status.State, made.ID
	stream := []string{}
	for event, err := range client.SendStreamingMessage(ctx, message("")) {
		if err != nil {
			return nil, err
		}
		stream = append(stream, payload(event))
	}
	said["stream"] = stream
	got, err := client.GetTask(ctx, &a2a.GetTaskRequest{ID: made.ID})
	said["got"] = err == nil && got.ID == made.ID
	_, err = client.CancelTask(ctx, &a2a.CancelTaskRequest{ID: made.ID})
	said["cancel"] = kind(err)
	_, err = client.GetTask(ctx, &a2a.GetTaskRequest{ID: "none"})
	said["unknown"] = kind(err)
	for name, url := range map[string]string{"push": listed, "push elsewhere": unlisted} {
		_, err = client.CreateTaskPushConfig(ctx, &a2a.CreateTaskPushConfigRequest{
			TaskID: made.ID, Config: a2a.PushConfig{ID: "c", URL: url},
		})
		said[name] = shown(err)
	}
	extended, err := client.GetExtendedAgentCard(ctx, &a2a.GetExtendedAgentCardRequest{})
	if err != nil {
		return nil, err
	}
	said["extended"] = []any{extended.Name, urls(extended)}
	return said, nil
}

func main() {
	var err error
	if os.Args[1] == "server" {
		err = serve(os.Args[2], os.Args[3], os.Args[4])
	} else {
		var said map[string]any
		if said, err = call(os.Args[2], os.Args[3:]); err == nil {
			err = json.NewEncoder(os.Stdout).Encode(said)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
