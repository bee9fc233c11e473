// circuits-using-connections
// Active circuits that use one of the given connections, with its effect in each.
//
// param connections: list[connection] -- Connections with their model, such as
//   gpt2/a9.h6->a10.h7<k>.
// returns connection: string -- The connection used.
// returns circuit: string -- Circuit's id.
// returns task: string -- Task it was found on.
// returns method: string -- Method that found it.
// returns effect: number? -- Effect of the connection; positive helps if sign is helps-positive.
// returns sign: string -- Meaning of the sign of the effect: helps-positive, unsigned, unknown.
// returns rank: integer? -- Rank among the circuit's edges, 1 for the strongest.
// returns positions: integer -- Number of its edges in the circuit, one for each pair of positions.
UNWIND $connections AS one
MATCH (:Connection {id: one})<-[uses:USES]-(circuit:Circuit)
WHERE circuit.state = 'active'
RETURN one AS connection, circuit.id AS circuit, circuit.task AS task, circuit.method AS method,
       uses.effect AS effect, circuit.sign AS sign, uses.rank AS rank, uses.positions AS positions
ORDER BY task, circuit, connection
