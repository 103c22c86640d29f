"""What several test folders share: golden data, the lab, small builders."""
