import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;

/** Asks a running server through JDBC: `java -cp postgresql.jar Peer.java HOST:PORT`; prints what it was answered. */
class Peer {
    public static void main(String[] arguments) throws Exception {
        String url = "jdbc:postgresql://" + arguments[0] + "/forecourt?user=analyst";
        try (Connection connection = DriverManager.getConnection(url)) {
            try (ResultSet tables = connection.getMetaData().getTables(null, "current", "offers", null)) {
                System.out.println("table " + (tables.next() ? tables.getString("TABLE_NAME") : "none"));
            }
            String query = "SELECT count(*) FROM lake.events WHERE event_type = ?";
            try (PreparedStatement statement = connection.prepareStatement(query)) {
                statement.setString(1, "PriceSet");
                try (ResultSet rows = statement.executeQuery()) {
                    rows.next();
                    System.out.println("events " + rows.getLong(1));
                }
            }
        }
    }
}
