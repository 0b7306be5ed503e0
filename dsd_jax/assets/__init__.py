"""The bundled model and drawings, with their licences and the scripts that rebuild them."""
