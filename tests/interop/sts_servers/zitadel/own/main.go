// An OpenID provider on zitadel's package op that issues delegated tokens. Everything but the hooks below is the
// library's and its example's: parsers, verifiers, signatures, metadata, errors, the login page and the store.
//
// What the hooks add: JWT access tokens with a scope claim; "act" with the actor token's subject, around the subject
// token's own "act"; a JWT-SVID as actor token; "may_act" in the token of a login whose scope asks for it. With "strict",
// also what a sidecar needs: the actor is the client, one audience at least, scope and life no larger than the subject
// token's; and what RFC 8693 section 4.4 expects: a subject token with "may_act" is exchanged for that actor alone.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/zitadel/oidc/v3/example/server/exampleop"
	"github.com/zitadel/oidc/v3/example/server/storage"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

type settings struct {
	Port        int               `json:"port"`
	UsersFile   string            `json:"users_file"`
	RedirectURI string            `json:"redirect_uri"`
	Clients     map[string]string `json:"clients"`
	Bundle      string            `json:"bundle"` // URL of the JWT bundle of the trust domain; empty: no JWT-SVIDs
	Strict      bool              `json:"strict"`
}

type store struct {
	*storage.Storage
	settings settings
	issuer   string
}

// agent is a client of the example whose access tokens are JWTs, and that may ask for any scope and for its own token.
type agent struct{ op.Client }

func (agent) AccessTokenType() op.AccessTokenType { return op.AccessTokenTypeJWT }
func (agent) IsScopeAllowed(string) bool          { return true }
func (a agent) GrantTypes() []oidc.GrantType {
	return append(a.Client.GrantTypes(), oidc.GrantTypeClientCredentials)
}

func (s *store) GetClientByClientID(ctx context.Context, clientID string) (op.Client, error) {
	client, err := s.Storage.GetClientByClientID(ctx, clientID)
	if err != nil {
		return nil, err
	}
	return agent{client}, nil
}

func (s *store) ClientCredentials(ctx context.Context, clientID, secret string) (op.Client, error) {
	if err := s.AuthorizeClientIDSecret(ctx, clientID, secret); err != nil {
		return nil, err
	}
	return s.GetClientByClientID(ctx, clientID)
}

func (s *store) ClientCredentialsTokenRequest(_ context.Context, clientID string, scopes []string) (op.TokenRequest, error) {
	return &oidc.JWTTokenRequest{Subject: clientID, Audience: []string{clientID}, Scopes: scopes}, nil
}

// GetPrivateClaimsFromScopes gives the first token of a login its scope, as the library writes none into a JWT. The scope
// "may_act:NAME" becomes the claim of RFC 8693 section 4.4.
func (s *store) GetPrivateClaimsFromScopes(_ context.Context, _, _ string, scopes []string) (map[string]any, error) {
	claims, kept := map[string]any{}, []string{}
	for _, scope := range scopes {
		if name, ok := strings.CutPrefix(scope, "may_act:"); ok {
			claims["may_act"] = map[string]any{"sub": name}
		} else {
			kept = append(kept, scope)
		}
	}
	claims["scope"] = strings.Join(kept, " ")
	return claims, nil
}

func (s *store) ValidateTokenExchangeRequest(_ context.Context, request op.TokenExchangeRequest) error {
	if request.GetRequestedTokenType() == "" {
		request.SetRequestedTokenType(oidc.AccessTokenType)
	}
	if request.GetExchangeActor() == "" {
		return oidc.ErrInvalidRequest().WithDescription("an actor_token is needed")
	}
	if !s.settings.Strict {
		return nil
	}
	if request.GetExchangeActor() != request.GetClientID() {
		return oidc.ErrInvalidRequest().WithDescription("the actor_token is another client's")
	}
	if named, ok := request.GetExchangeSubjectTokenClaims()["may_act"]; ok {
		if may, ok := named.(map[string]any); !ok || len(may) != 1 || may["sub"] != request.GetExchangeActor() {
			return oidc.ErrInvalidRequest().WithDescription("may_act names another actor")
		}
	}
	if len(request.GetAudience()) == 0 {
		return &oidc.Error{ErrorType: "invalid_target", Description: "an audience is needed"}
	}
	granted, _ := request.GetExchangeSubjectTokenClaims()["scope"].(string)
	if len(request.GetScopes()) == 0 {
		request.SetCurrentScopes(strings.Fields(granted))
	}
	for _, scope := range request.GetScopes() {
		if !slices.Contains(strings.Fields(granted), scope) {
			return oidc.ErrInvalidScope().WithDescription("a scope is wider than the subject token's")
		}
	}
	return nil
}

func (s *store) GetPrivateClaimsFromTokenExchangeRequest(_ context.Context, request op.TokenExchangeRequest) (map[string]any, error) {
	act := map[string]any{"sub": request.GetExchangeActor()}
	if earlier, ok := request.GetExchangeSubjectTokenClaims()["act"]; ok {
		act["act"] = earlier
	}
	return map[string]any{"act": act, "scope": strings.Join(request.GetScopes(), " ")}, nil
}

func (s *store) CreateAccessToken(ctx context.Context, request op.TokenRequest) (string, time.Time, error) {
	id, expires, err := s.Storage.CreateAccessToken(ctx, request)
	if exchange, ok := request.(op.TokenExchangeRequest); ok && err == nil && s.settings.Strict {
		if seconds, ok := exchange.GetExchangeSubjectTokenClaims()["exp"].(float64); ok {
			if limit := time.Unix(int64(seconds), 0); limit.Before(expires) {
				expires = limit
			}
		}
	}
	return id, expires, err
}

func (s *store) VerifyExchangeSubjectToken(context.Context, string, oidc.TokenType) (string, string, map[string]any, error) {
	return "", "", nil, errors.New("only this server's own tokens are exchanged")
}

// VerifyExchangeActorToken is asked about every actor token that this server did not issue.
func (s *store) VerifyExchangeActorToken(ctx context.Context, raw string, _ oidc.TokenType) (string, string, map[string]any, error) {
	if s.settings.Bundle == "" {
		return "", "", nil, errors.New("no JWT-SVIDs here")
	}
	keys, err := bundle(ctx, s.settings.Bundle)
	if err != nil {
		return "", "", nil, err
	}
	token, err := jwt.ParseSigned(raw, []jose.SignatureAlgorithm{jose.ES256, jose.RS256})
	if err != nil {
		return "", "", nil, err
	}
	var claims jwt.Claims
	if err := token.Claims(keys, &claims); err != nil {
		return "", "", nil, err
	}
	if claims.Expiry == nil || !strings.HasPrefix(claims.Subject, "spiffe://") {
		return "", "", nil, errors.New("no JWT-SVID")
	}
	if err := claims.Validate(jwt.Expected{AnyAudience: jwt.Audience{s.issuer}, Time: time.Now()}); err != nil {
		return "", "", nil, err
	}
	return raw, claims.Subject, nil, nil
}

func bundle(ctx context.Context, url string) (*jose.JSONWebKeySet, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	keys := new(jose.JSONWebKeySet)
	return keys, json.NewDecoder(answer.Body).Decode(keys)
}

func main() {
	raw, err := os.ReadFile(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	var known settings
	if err := json.Unmarshal(raw, &known); err != nil {
		log.Fatal(err)
	}
	users, err := storage.StoreFromFile(known.UsersFile)
	if err != nil {
		log.Fatal(err)
	}
	clients := map[string]*storage.Client{}
	for id, secret := range known.Clients {
		clients[id] = storage.WebClient(id, secret, known.RedirectURI)
	}
	address := fmt.Sprintf("127.0.0.1:%d", known.Port)
	issuer := "http://" + address
	logger := slog.New(slog.NewTextHandler(os.Stderr, nil))
	keep := &store{Storage: storage.NewStorageWithClients(users, clients), settings: known, issuer: issuer}
	log.Fatal(http.ListenAndServe(address, exampleop.SetupServer(issuer, keep, logger, false)))
}
