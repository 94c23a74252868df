// Tells, as JSON, what net/http says of a request.
package main

import (
	"encoding/json"
	"net"
	"net/http"
	"os"
)

func view(writer http.ResponseWriter, request *http.Request) {
	fields := map[string]string{}
	for name := range request.Header {
		fields[name] = request.Header.Get(name)
	}
	scheme := "http"
	if request.TLS != nil {
		scheme = "https"
	}
	client, _, _ := net.SplitHostPort(request.RemoteAddr)
	json.NewEncoder(writer).Encode(map[string]any{
		"path": "|" + request.URL.Path, "method": request.Method, "scheme": scheme, "host": request.Host,
		"client": client, "user": "", "fields": fields,
	})
}

func main() {
	http.HandleFunc("/", view)
	panic(http.ListenAndServe("127.0.0.1:"+os.Args[1], nil))
}
