package coalmine

import "google.golang.org/grpc/metadata"

// Variant returns which variant of a route answered; "" where no router did. Ask for the trailing
// metadata of a call by grpc.Trailer.
func Variant(trailer metadata.MD) string { return first(trailer, "x-coalmine-variant") }

// Origin returns who made a failed call's error: "router", or "server" for all others.
func Origin(trailer metadata.MD) string {
	if origin := first(trailer, "x-coalmine-origin"); origin != "" {
		return origin
	}
	return "server"
}

func first(trailer metadata.MD, key string) string {
	if values := trailer.Get(key); len(values) > 0 {
		return values[0]
	}
	return ""
}
