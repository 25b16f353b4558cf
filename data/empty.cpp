namespace ermoe {}
