import java.nio.file.Path;
import org.neo4j.configuration.GraphDatabaseSettings;
import org.neo4j.configuration.connectors.BoltConnector;
import org.neo4j.configuration.helpers.SocketAddress;
import org.neo4j.dbms.api.DatabaseManagementServiceBuilder;

/** The community kernel with Bolt on a loopback port; arguments: data folder, port, settings. */
public class Neo4jServer {
    public static void main(String[] arguments) throws Exception {
        var address = new SocketAddress("127.0.0.1", Integer.parseInt(arguments[1]));
        var server = new DatabaseManagementServiceBuilder(Path.of(arguments[0]))
            .loadPropertiesFromFile(Path.of(arguments[2]))  // in the form of neo4j.conf
            .setConfig(GraphDatabaseSettings.auth_enabled, true)
            .setConfig(BoltConnector.enabled, true)
            .setConfig(BoltConnector.listen_address, address)
            .setConfig(BoltConnector.advertised_address, address)
            .build();
        System.out.println("ready");
        while (System.in.read() >= 0) {}  // it ends with whoever started it, however that ended
        server.shutdown();
    }
}
