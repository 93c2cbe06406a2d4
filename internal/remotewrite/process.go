package remotewrite

// ProcessHeader names the process that sends a request: a word that is another one in each
// process. A gateway that receives its own answers 508, and so does not send to itself, in
// a circle, all that it receives.
const ProcessHeader = "X-Sluice-Process"
