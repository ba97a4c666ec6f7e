package main

// Server answers.
type Server struct {
	port int
}

// Run 运行 it.
func (s *Server) Run(addr string) error {
	if s.port == 0 {
		return nil
	}

	return nil
}
