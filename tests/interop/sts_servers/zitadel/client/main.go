// One exchange with zitadel's client (pkg/client/tokenexchange) over TLS with an X.509-SVID.
// It reads a question as JSON from standard input, and writes what the client says of the answer.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net/http"
	"os"

	"github.com/zitadel/oidc/v3/pkg/client/tokenexchange"
	"github.com/zitadel/oidc/v3/pkg/oidc"
)

type question struct {
	Issuer           string   `json:"issuer"`
	TokenEndpoint    string   `json:"token_endpoint"`
	Certificate      string   `json:"certificate"`
	Key              string   `json:"key"`
	Bundle           string   `json:"bundle"`
	Peer             string   `json:"peer"`
	SubjectToken     string   `json:"subject_token"`
	SubjectTokenType string   `json:"subject_token_type"`
	ActorToken       string   `json:"actor_token"`
	ActorTokenType   string   `json:"actor_token_type"`
	Audience         []string `json:"audience"`
	Scope            []string `json:"scope"`
}

func transport(asked question) (*http.Transport, error) {
	pair, err := tls.LoadX509KeyPair(asked.Certificate, asked.Key)
	if err != nil {
		return nil, err
	}
	raw, err := os.ReadFile(asked.Bundle)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(raw)
	return &http.Transport{TLSClientConfig: &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{pair},
		// An SVID has a URI and no DNS name: the chain and that URI are checked below.
		InsecureSkipVerify: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			leaf, between := state.PeerCertificates[0], x509.NewCertPool()
			for _, one := range state.PeerCertificates[1:] {
				between.AddCert(one)
			}
			if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between}); err != nil {
				return err
			}
			if len(leaf.URIs) != 1 || leaf.URIs[0].String() != asked.Peer {
				return errors.New("another workload answers")
			}
			return nil
		},
	}}, nil
}

func main() {
	var asked question
	if err := json.NewDecoder(os.Stdin).Decode(&asked); err != nil {
		log.Fatal(err)
	}
	over, err := transport(asked)
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	exchanger, err := tokenexchange.NewTokenExchanger(ctx, asked.Issuer,
		tokenexchange.WithHTTPClient(&http.Client{Transport: over}),
		tokenexchange.WithStaticTokenEndpoint(asked.Issuer, asked.TokenEndpoint))
	if err != nil {
		log.Fatal(err)
	}
	told := map[string]any{}
	answer, err := tokenexchange.ExchangeToken(ctx, exchanger,
		asked.SubjectToken, oidc.TokenType(asked.SubjectTokenType),
		asked.ActorToken, oidc.TokenType(asked.ActorTokenType),
		nil, asked.Audience, asked.Scope, "")
	if refused := new(oidc.Error); errors.As(err, &refused) {
		told["error"] = string(refused.ErrorType)
	} else if err != nil {
		told["failed"] = fmt.Sprint(err)
	} else {
		told["access_token"], told["token_type"] = answer.AccessToken, answer.TokenType
	}
	if err := json.NewEncoder(os.Stdout).Encode(told); err != nil {
		log.Fatal(err)
	}
}
