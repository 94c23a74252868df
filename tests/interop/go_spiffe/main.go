// A workload that uses go-spiffe alone: an independent peer of the sidecar, as server, as client, and as verifier of JWT-SVIDs.
//
//	peer serve ADDRESS SPIFFE_ID LISTEN PEER      answers each request of PEER with its SPIFFE ID; prints "ready"
//	peer get ADDRESS SPIFFE_ID URL PEER [HEADER]  prints status and body of a request to PEER
//	peer verify ADDRESS AUDIENCE                  reads a JWT-SVID from stdin, prints its SPIFFE ID
//
// ADDRESS is the Workload API's. Of several identities the process takes SPIFFE_ID.
package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
)

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	var err error
	switch {
	case len(os.Args) == 6 && os.Args[1] == "serve":
		err = serve(ctx, os.Args[2], os.Args[3], os.Args[4], os.Args[5])
	case len(os.Args) >= 6 && os.Args[1] == "get":
		err = get(ctx, os.Args[2], os.Args[3], os.Args[4], os.Args[5], os.Args[6:])
	case len(os.Args) == 4 && os.Args[1] == "verify":
		err = verify(ctx, os.Args[2], os.Args[3])
	default:
		err = fmt.Errorf("usage: peer serve|get|verify ...")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func source(ctx context.Context, address, id string) (*workloadapi.X509Source, error) {
	own, err := spiffeid.FromString(id)
	if err != nil {
		return nil, err
	}
	pick := func(svids []*x509svid.SVID) *x509svid.SVID {
		for _, svid := range svids {
			if svid.ID == own {
				return svid
			}
		}
		return nil
	}
	return workloadapi.NewX509Source(ctx, workloadapi.WithClientOptions(workloadapi.WithAddr(address)),
		workloadapi.WithDefaultX509SVIDPicker(pick))
}

func serve(ctx context.Context, address, id, listen, peer string) error {
	own, err := source(ctx, address, id)
	if err != nil {
		return err
	}
	defer own.Close()
	answer := func(w http.ResponseWriter, r *http.Request) {
		caller, err := x509svid.IDFromCert(r.TLS.PeerCertificates[0])
		if err != nil {
			http.Error(w, "no SPIFFE ID", http.StatusForbidden)
			return
		}
		fmt.Fprint(w, caller)
	}
	server := &http.Server{
		Addr:              listen,
		Handler:           http.HandlerFunc(answer),
		TLSConfig:         tlsconfig.MTLSServerConfig(own, own, tlsconfig.AuthorizeID(spiffeid.RequireFromString(peer))),
		ReadHeaderTimeout: 10 * time.Second,
	}
	fmt.Println("ready")
	return server.ListenAndServeTLS("", "")
}

func get(ctx context.Context, address, id, url, peer string, headers []string) error {
	own, err := source(ctx, address, id)
	if err != nil {
		return err
	}
	defer own.Close()
	tls := tlsconfig.MTLSClientConfig(own, own, tlsconfig.AuthorizeID(spiffeid.RequireFromString(peer)))
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: tls}, Timeout: 20 * time.Second}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, nil)
	if err != nil {
		return err
	}
	for _, header := range headers {
		name, value, _ := strings.Cut(header, ": ")
		request.Header.Set(name, value)
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	fmt.Printf("%d %s %s\n", response.StatusCode, response.Header.Get("Delegation-Reason"), body)
	return nil
}

func verify(ctx context.Context, address, audience string) error {
	keys, err := workloadapi.NewBundleSource(ctx, workloadapi.WithClientOptions(workloadapi.WithAddr(address)))
	if err != nil {
		return err
	}
	defer keys.Close()
	token, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	svid, err := jwtsvid.ParseAndValidate(strings.TrimSpace(string(token)), keys, []string{audience})
	if err != nil {
		return err
	}
	fmt.Println(svid.ID)
	return nil
}
