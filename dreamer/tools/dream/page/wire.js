// The WebSocket to this page's session. A message is a header in JSON, then bytes.

const decoder = new TextDecoder();

export function connect(receive, closed) {
  const address = new URL("session", location.href);
  address.protocol = "ws:";
  const socket = new WebSocket(address);
  socket.binaryType = "arraybuffer";
  socket.onmessage = ({ data }) => {
    const length = new DataView(data).getUint32(0, true);
    receive(JSON.parse(decoder.decode(new Uint8Array(data, 4, length))), new Uint8Array(data, 4 + length));
  };
  socket.onclose = ({ reason }) => closed(reason);
  return (kind, parts = {}) => {
    if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify({ kind, ...parts }));
  };
}
