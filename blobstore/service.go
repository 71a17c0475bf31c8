package blobstore

// ServiceError is what a storage service, or the way to it, said. It wraps the
// condition of this package that it amounts to, if any.
type ServiceError struct {
	Code      string // the service's, such as AccessDenied; "" when no answer came
	Status    int    // HTTP; 0 when no answer came
	RequestID string
	Err       error
	Advice    string // a way out for people; "" when there is none to tell
}

func (e *ServiceError) Error() string {
	text := e.Err.Error()
	if e.RequestID != "" {
		text += " (request id " + e.RequestID + ")"
	}
	return text
}

func (e *ServiceError) Unwrap() error { return e.Err }

// Hint is the advice.
func (e *ServiceError) Hint() string { return e.Advice }
